"""Floating-point operations of a decoder, counted from its shape: what examples need, whatever is padded or recomputed."""

from collections.abc import Iterable

from immunax.models.config import DecoderConfig
from immunax.models.lora import LoraSpec

Sizes = Iterable[tuple[int, int]]
"""Of examples: how many tokens each has, and how many of them are its answer."""


def forward_flops(config: DecoderConfig, examples: Sizes) -> float:
    """One forward pass: products with weights, causal attention, logits where an answer is predicted.

    Args:
      config: shape of the decoder.
      examples: their sizes.
    """
    return _flops(config, examples, 1, 1)


def training_flops(config: DecoderConfig, examples: Sizes, lora: LoraSpec | None = None) -> float:
    """One gradient step.

    A trained matrix costs three products (forward, and backward to its input and to itself), a frozen one two.

    Args:
      config: shape of the decoder.
      examples: their sizes.
      lora: the adapters that are trained; None for the full weights.
    """
    examples = list(examples)
    if lora is None:
        return _flops(config, examples, 3, 3)
    sizes = config.projections()
    adapters = len(lora.rows(config.n_layers)) * lora.rank * sum(sum(sizes[name]) for name in lora.targets)
    tokens = sum(size for size, _ in examples)
    return _flops(config, examples, 2, 3) + 3 * 2 * tokens * adapters


def _flops(config: DecoderConfig, examples: Sizes, weight_passes: int, attention_passes: int) -> float:
    weights = config.n_layers * sum(into * out for into, out in config.projections().values())
    inner = config.n_layers * config.n_heads * config.head_dim
    total = 0.0
    for size, answers in examples:
        products = size * weights + answers * config.d_model * config.vocab_size
        # Two products of [T, T] scores, half of them masked.
        total += 2 * weight_passes * products + 2 * attention_passes * inner * size**2
    return total
