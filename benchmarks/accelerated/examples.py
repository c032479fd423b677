"""Random data of a case, and lengths of examples as they are in real ones."""

import jax
import jax.numpy as jnp
import numpy as np

from accelerated.work import random_key
from immunax.data.batches import Batch, pack
from immunax.data.chat import Encoded
from immunax.data.packing import Layout, first_fit


def dense(shape: tuple[int, ...], vocab: int, seed: int = 0) -> Batch:
    """Rows without padding, one example each, of which all but the first token is answer.

    Args:
      shape: ``[..., B, T]``.
      vocab: V.
      seed: of the tokens.
    """
    tokens = jax.random.randint(random_key(seed), shape, 0, vocab, jnp.int32)
    columns = jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int32), shape)
    weights = jnp.ones((*shape[:-1], shape[-1] - 1), jnp.float32)
    return Batch(tokens, jnp.ones(shape, jnp.int32), columns, columns[..., :-1], tokens[..., 1:], weights)


def real_lengths(rows: int, length: int) -> list[int]:
    """Lengths of as many examples as fill so many rows, drawn with seed 0.

    Log-normal with a median of 0.3 rows and a spread of 0.6, as Alpaca's dialogs are spread; none is longer than a row. They are
    taken as they come until the next one would need another row.
    """
    random, found = np.random.default_rng(0), []
    while True:
        drawn = int(np.clip(random.lognormal(np.log(0.3 * length), 0.6), 8, length))
        if len(first_fit([*found, drawn], length)) > rows:
            return found
        found.append(drawn)


def packed(rows: int, length: int, vocab: int) -> tuple[Batch, list[int]]:
    """Examples of :func:`real_lengths` in rows, and those lengths."""
    lengths, random = real_lengths(rows, length), np.random.default_rng(1)
    examples = [_example(random.integers(0, vocab, size).tolist(), 1) for size in lengths]
    return pack(examples, Layout(rows, length, length)), lengths


def attack_examples(samples: int, length: int, vocab: int, seed: int) -> list[Encoded]:
    """What an attack trains on: examples of one length, half of it answer."""
    random = np.random.default_rng(seed)
    return [_example(random.integers(0, vocab, length).tolist(), length // 2) for _ in range(samples)]


def _example(tokens: list[int], prompt: int) -> Encoded:
    return Encoded(tuple(tokens[:prompt]), tuple(tokens[prompt:]))
