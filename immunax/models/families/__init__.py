"""The families of decoders: one file each, which says what only that family has. A new one is a file and a line here."""

from immunax.models.config import DecoderConfig
from immunax.models.families.family import Family
from immunax.models.families.gemma2 import GEMMA2
from immunax.models.families.llama import LLAMA
from immunax.models.families.mistral import MISTRAL
from immunax.models.families.olmo2 import OLMO2
from immunax.models.families.qwen2 import QWEN2
from immunax.models.families.qwen3 import QWEN3
from immunax.models.families.tensors import Path, Tensor

FAMILIES = {each.model_type: each for each in (LLAMA, MISTRAL, QWEN2, QWEN3, OLMO2, GEMMA2)}
"""By ``model_type``."""

BY_ARCHITECTURE = {each.gguf.architecture: each for each in FAMILIES.values() if each.gguf.architecture}
"""By ``general.architecture`` of GGUF files; Mistral's say ``llama``."""


def tensors(config: DecoderConfig) -> dict[Path, Tensor]:
    """Each leaf of a decoder's tree and its tensor in a Hugging Face folder, in the order of the forward pass."""
    return FAMILIES[config.family].tensors(config)


__all__ = ["BY_ARCHITECTURE", "FAMILIES", "Family", "Tensor", "tensors"]
