"""Greedy decoding, the prompts' own pass included."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from accelerated.models import model_of
from accelerated.work import Work, random_key, random_weights
from immunax.models.flops import forward_flops
from immunax.models.generate import Decoding, generate


def decoding_work(sizes: Mapping[str, Any], platform: str) -> Work:
    """Answers of a fixed length to prompts of another, from float32 weights as a trained model has them."""
    model, decoding = model_of(sizes, platform), Decoding(sizes["new"])
    prompts, length, new = sizes["prompts"], sizes["length"], sizes["new"]

    def decode(weights: Any, tokens: jax.Array) -> jax.Array:
        return generate(model, weights, tokens, jnp.ones_like(tokens), (), decoding)

    def inputs(weights: Any) -> tuple[Any, jax.Array]:
        vocab = model.config.vocab_size
        return weights, jax.random.randint(random_key(1), (prompts, length), 0, vocab, jnp.int32)

    flops = forward_flops(model.config, [(length + new - 1, new)] * prompts)
    return Work(decode, partial(random_weights, model), inputs, prompts * new, flops, turns=new - 1, carried=False)
