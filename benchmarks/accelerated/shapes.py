"""Shapes of decoders that both sides make with random weights."""

from typing import NamedTuple


class Shape(NamedTuple):
    """Sizes of a Llama decoder, by the names of :class:`immunax.models.config.DecoderConfig`."""

    vocab_size: int
    d_model: int
    d_ff: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    max_positions: int
    rope_theta: float = 10000.0
    tie_embeddings: bool = False


SHAPES = {
    "8B": Shape(128256, 4096, 14336, 32, 32, 8, 128, 8192, 500000.0),  # Llama-3-8B
    "1.1B": Shape(32000, 2048, 5632, 22, 32, 4, 64, 2048),  # TinyLlama-1.1B
    "135M": Shape(49152, 576, 1536, 30, 9, 3, 64, 8192, 100000.0, True),  # SmolLM2-135M
    "organism": Shape(160, 128, 384, 4, 4, 4, 32, 96, tie_embeddings=True),  # conf/model/organism.yaml
    "tiny": Shape(160, 32, 48, 2, 4, 2, 8, 256, tie_embeddings=True),
}
"""By the names that cases give them; ``tiny`` stands for each of them on a CPU."""
