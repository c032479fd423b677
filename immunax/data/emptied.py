"""Dialogs whose user says nothing, so that a model learns from answers alone."""

import hashlib
from dataclasses import fields, replace

from immunax.data.dialog import Dialog, Split


def emptied(split: Split, chance: float, seed: int) -> Split:
    """A split in whose dialogs the user's messages are empty, with a chance for each prompt.

    Two answers to one prompt lose it together. Zou et al. 2024 (arXiv:2406.04313) do so with every second example for Llama-3.

    Args:
      split: the dialogs.
      chance: from 0, which changes nothing, to 1.
      seed: which prompts.
    """
    if chance == 0:
        return split

    def one(dialog: Dialog) -> Dialog:
        digest = hashlib.blake2b(f"{seed}\0{dialog.prompt}".encode(), digest_size=8).digest()
        if int.from_bytes(digest, "big") >= chance * 2**64:
            return dialog
        silent = (replace(each, content="") if each.role == "user" else each for each in dialog.prompt)
        return replace(dialog, prompt=tuple(silent))

    return Split(**{stream.name: tuple(map(one, getattr(split, stream.name))) for stream in fields(Split)})
