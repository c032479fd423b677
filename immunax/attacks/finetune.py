"""Choosing the dialogs that an attack is made with."""

from collections.abc import Sequence

from immunax.data.order import choose
from immunax.runtime.errors import UserError


def take(dialogs: Sequence, count: int, seed: int, stream: str) -> tuple:
    """``count`` dialogs of a stream of the split ``attack``, chosen by ``seed``.

    Raises:
      UserError: the stream holds fewer, or none are asked for.
    """
    if not dialogs:
        raise UserError(
            f"the attack trains on the stream {stream!r} of the split attack, which the data lack: give a source a share for "
            "it (splits: {train: 0.6, attack: 0.4}), attack with the defense's data (data.attacker=shared), or choose another "
            "attack."
        )
    if not 1 <= count <= len(dialogs):
        raise UserError(
            f"the attack's samples={count} of the stream {stream!r}: expected 1 to {len(dialogs)}, as the split attack has."
        )
    return choose(dialogs, count, seed)
