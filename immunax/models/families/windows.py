"""Sliding windows that only some layers have."""

from collections.abc import Mapping, Sequence

from immunax.models.config import DecoderConfig
from immunax.models.families.fields import Fields
from immunax.runtime.errors import UserError, shown

_KINDS = {"full_attention": False, "sliding_attention": True}


def read_layers(fields: Fields, absent: Sequence[bool]) -> Mapping:
    """The window and the layers that have it, as ``layer_types`` says.

    Args:
      fields: a ``config.json`` that has a window.
      absent: which layers have it where the file does not say.

    Raises:
      UserError: a kind of layer is none of ours, or the file does not name one for each layer.
    """
    kinds = fields.get("layer_types") or [name for each in absent for name in _KINDS if _KINDS[name] == each]
    known = isinstance(kinds, list) and all(isinstance(kind, str) and kind in _KINDS for kind in kinds)
    if not known or len(kinds) != fields.layers("num_hidden_layers"):
        raise UserError(f"{fields.where}: layer_types {shown(kinds)}: expected {' or '.join(_KINDS)} for each layer.")
    windowed = tuple(_KINDS[kind] for kind in kinds)
    if not any(windowed):
        return {}
    return {"sliding_window": fields.count("sliding_window"), "windowed": _period(windowed)}


def layer_types(config: DecoderConfig) -> list[str]:
    """The inverse of :func:`read_layers`: the kind of each layer."""
    full, sliding = _KINDS
    windowed = config.windowed if config.sliding_window is not None else (False,)
    return [sliding if windowed[layer % len(windowed)] else full for layer in range(config.n_layers)]


def _period(windowed: tuple[bool, ...]) -> tuple[bool, ...]:
    """The shortest beginning that, repeated, gives the whole."""
    sizes = range(1, len(windowed) + 1)
    repeats = (
        windowed[:size] for size in sizes if all(windowed[i] == windowed[i % size] for i in range(len(windowed)))
    )
    return next(repeats)
