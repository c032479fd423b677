"""How many answers are written at once: decoding reads all weights for a token of each, however many they are."""

import jax
import jax.numpy as jnp

from immunax.models.model import Model
from immunax.runtime.together import gathered

SHARE = 0.125
"""Of an accelerator's memory, for what answers take beside the weights: others are there too, such as a reference's."""


def row_bytes(model: Model, width: int, written: int) -> int:
    """What a prompt of ``width`` tokens takes while an answer of ``written`` is decoded, at most and about.

    The cache is there three times while it is made, a layer's scores and the logits twice, its MLP once.
    """
    c, each = model.config, jnp.dtype(model.dtype).itemsize
    cache = 2 * c.n_layers * c.n_kv_heads * c.head_dim * (width + written) * each
    layer = width * (width * c.n_heads * 2 * 4 + 3 * c.d_ff * each + 4 * c.d_model * each)
    return 3 * cache + layer + 2 * 4 * c.vocab_size


def memory_bytes() -> int | None:
    """Of this process's first device; None of a CPU, which is at its best with few rows."""
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    return stats.get("bytes_limit") if stats else None


def rows_at_once(model: Model, least: int, width: int, written: int, memory: int | None) -> int:
    """Answers at once.

    Args:
      model: static.
      least: how many at least, and on a CPU.
      width: tokens of a prompt.
      written: tokens of an answer.
      memory: of a device, from :func:`memory_bytes`.
    """
    return least if memory is None else max(least, int(SHARE * memory) // row_bytes(model, width, written))


def everywhere(memory: int | None) -> int | None:
    """The least :func:`memory_bytes` of any process: all have to choose the same program."""
    return None if memory is None else min(gathered(memory))
