"""What one family of decoders has that others have not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from immunax.models.config import DecoderConfig
from immunax.models.families.fields import Fields
from immunax.models.families.tensors import Names, Path, Tensor, tensors

_GGUF_MODULES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "attention_output_norm": "post_attention_norm",
    "mlp_output_norm": "post_ffw_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _nothing(of: Any) -> dict[str, Any]:
    return {}


def _as_it_is(name: str, value: np.ndarray, config: DecoderConfig) -> np.ndarray:
    return value


@dataclass(frozen=True)
class Gguf:
    """The family in GGUF files.

    Attributes:
      architecture: ``general.architecture`` of its files; empty if they say another family's.
      read: the fields of the decoder that its metadata give in their own way.
      restore: undoes what llama.cpp's converter does to a tensor, given its name in the file and its value.
    """

    architecture: str = ""
    read: Callable[[Fields], Mapping[str, Any]] = _nothing
    restore: Callable[[str, np.ndarray, DecoderConfig], np.ndarray] = _as_it_is


@dataclass(frozen=True)
class Family:
    """A Hugging Face ``model_type``; every field but the first two has the value that most families share.

    Attributes:
      model_type: the name in ``config.json``.
      architecture: the class that ``transformers`` builds for it.
      fixed: fields of :class:`DecoderConfig` that are the same in all its models.
      implied: fields that ``config.json`` may leave out: ``num_key_value_heads`` (then as many as heads) and ``head_dim``
        (then the width over the heads).
      allowed: values of fields in ``config.json`` that the decoder computes; others are refused.
      read: the fields of the decoder that ``config.json`` gives in the family's own way.
      write: the inverse: what else its ``config.json`` says.
      modules: our name of a module to Hugging Face's, where they differ.
      gguf: its GGUF files.
    """

    model_type: str
    architecture: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    implied: tuple[str, ...] = ("head_dim",)
    allowed: Mapping[str, tuple] = field(default_factory=dict)
    read: Callable[[Fields], Mapping[str, Any]] = _nothing
    write: Callable[[DecoderConfig], Mapping[str, Any]] = _nothing
    modules: Mapping[str, str] = field(default_factory=dict)
    gguf: Gguf = Gguf()

    def tensors(self, config: DecoderConfig) -> dict[Path, Tensor]:
        """Each leaf's tensor in a Hugging Face folder."""
        outer = {"embed_tokens": "model.embed_tokens", "norm": "model.norm"}
        return tensors(config, Names("model.layers.{layer}.", {**outer, **self.modules}))

    def gguf_tensors(self, config: DecoderConfig) -> dict[Path, Tensor]:
        """Each leaf's tensor in a GGUF file."""
        return tensors(config, Names("blk.{layer}.", _GGUF_MODULES))
