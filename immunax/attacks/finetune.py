"""Choosing the dialogs that an attack is made with."""

from collections.abc import Sequence

from immunax.data.order import choose
from immunax.runtime.errors import UserError


def take(
    dialogs: Sequence, count: int | None, seed: int, stream: str, field: str = "samples", split: str = "attack"
) -> tuple:
    """``count`` dialogs, chosen by ``seed``.

    Args:
      dialogs: what there is.
      count: how many; None for all.
      seed: which ones.
      stream, split: where they are from, for the messages.
      field: what the attack calls their number, for the messages.

    Raises:
      UserError: there are fewer, or none are asked for.
    """
    if not dialogs:
        raise UserError(
            f"the attack trains on the stream {stream!r} of the split {split}, which the data lack: give a source a share for "
            "it (splits: {train: 0.6, attack: 0.4}), attack with the defense's data (data.attacker=shared), or choose another "
            "attack."
        )
    count = len(dialogs) if count is None else count
    if not 1 <= count <= len(dialogs):
        raise UserError(
            f"the attack's {field}={count} of the stream {stream!r}: expected 1 to {len(dialogs)}, as the split {split} has."
        )
    return choose(dialogs, count, seed)
