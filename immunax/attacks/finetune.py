"""Choosing the dialogs that an attack is made with."""

from collections.abc import Sequence

from immunax.data.order import choose
from immunax.runtime.errors import UserError


def take(dialogs: Sequence, count: int, seed: int, stream: str, field: str = "samples") -> tuple:
    """``count`` dialogs of a stream, chosen by ``seed``; ``field`` is what the attack calls their number.

    Raises:
      UserError: the stream holds fewer, or none are asked for.
    """
    if not dialogs:
        raise UserError(
            f"the attack trains on the stream {stream!r}, which the data lack: choose other data or attack."
        )
    if not 1 <= count <= len(dialogs):
        raise UserError(f"the attack's {field}={count} of the stream {stream!r}: expected 1 to {len(dialogs)}.")
    return choose(dialogs, count, seed)
