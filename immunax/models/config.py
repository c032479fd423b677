"""The static description of a decoder."""

from dataclasses import dataclass
from typing import Literal

from immunax.runtime.errors import UserError
from immunax.runtime.projections import PROJECTIONS


@dataclass(frozen=True)
class RopeScaling:
    """Frequency scaling of rotary embeddings: Llama 3's piecewise rule, or a plain linear factor.

    Attributes:
      kind: ``llama3`` (Grattafiori et al. 2024, as in the reference implementation) or ``linear``.
      factor: how much longer than the original context the scaled one is.
      low_freq_factor, high_freq_factor: bounds of the interpolated band; ``llama3`` only.
      original_max_positions: context length before scaling, in tokens; ``llama3`` only.
    """

    kind: Literal["llama3", "linear"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192


@dataclass(frozen=True)
class DecoderConfig:
    """Shape and variant of a decoder: everything that is not a weight.

    Attributes:
      family: the Hugging Face ``model_type``, a name in :data:`immunax.models.families.FAMILIES`, for export.
      vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads, head_dim: sizes V, D, F, L, H, and those of a head.
      max_positions: context length in tokens.
      rope_theta, rope_scaling: rotary embedding base and scaling.
      norm_eps: epsilon of every RMS norm.
      tie_embeddings: the output projection is the embedding matrix.
      qkv_bias: biases on the query, key and value projections (Qwen2).
      qk_norm: RMS norm on each query and key head (Qwen3).
      joint_qk_norm: that norm is over all heads of a token at once (OLMo 2).
      sliding_window: how many tokens back attention reaches, or None for all (Mistral 7B v0.1).
      windowed: which layers have the window, from the first on and then again (Gemma 2: every other one).
      pre_norm: attention and MLP read the normalised stream.
      post_norm: what attention and MLP write is normalised before it is added (OLMo 2, Gemma 2).
      norm_offset: is added to the learned scale of every norm (Gemma: 1).
      activation: of the MLP's gate.
      scale_embeddings: embeddings are multiplied by √D (Gemma).
      query_pre_attn_scalar: scores are divided by its root; None for ``head_dim``.
      attention_cap, logit_cap: soft caps of the scores and of the logits (Gemma 2), None for none.
    """

    family: str
    vocab_size: int
    d_model: int
    d_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    joint_qk_norm: bool = False
    sliding_window: int | None = None
    windowed: tuple[bool, ...] = (True,)
    pre_norm: bool = True
    post_norm: bool = False
    norm_offset: float = 0.0
    activation: Literal["silu", "gelu_tanh"] = "silu"
    scale_embeddings: bool = False
    query_pre_attn_scalar: int | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None

    def __post_init__(self):
        object.__setattr__(self, "windowed", tuple(self.windowed))

    def projections(self) -> dict[str, tuple[int, int]]:
        """Input and output size of every projection of a layer, by name."""
        sizes = {
            "d_model": self.d_model,
            "d_ff": self.d_ff,
            "queries": self.n_heads * self.head_dim,
            "keys": self.n_kv_heads * self.head_dim,
        }
        return {each.name: (sizes[each.into], sizes[each.out]) for each in PROJECTIONS}


def check_heads(config: DecoderConfig, where: str) -> None:
    """Refuses heads that attention cannot be computed with.

    Args:
      config: the decoder.
      where: the file that describes it, for messages.

    Raises:
      UserError: key/value heads do not divide the heads, or a head cannot be rotated by halves.
    """
    if config.n_heads % config.n_kv_heads or config.head_dim % 2:
        raise UserError(
            f"{where}: {config.n_heads} heads, {config.n_kv_heads} key/value heads, head_dim {config.head_dim}: "
            "expected key/value heads that divide the heads and an even head_dim."
        )
