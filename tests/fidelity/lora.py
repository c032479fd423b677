"""The adapters of ``torch_lora.py`` beside the golden model's weights."""

from fidelity.golden import Loss, params

from immunax.models.lora import Adapted

SCALE = 0.5 / 2
"""α/r, as ``torch_lora.py`` has them."""


def adapters(stored: dict) -> dict:
    """The factors that a reference drew, as :attr:`~immunax.models.lora.Adapted.lora` has them."""
    names = sorted({key.split(".")[0] for key in stored})
    return {"layers": {"self_attn": {name: {each: stored[f"{name}.{each}"] for each in "ab"} for name in names}}}


def beside(loss: Loss) -> Loss:
    """A loss of the adapters alone: the weights are held."""
    return lambda lora, batch, stored: loss(Adapted(params(), lora, SCALE), batch, stored)
