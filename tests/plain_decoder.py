"""The decoder of tests/small.py written out: a Python loop over rows, layers and heads, nothing stacked or scanned."""

import jax
import jax.numpy as jnp
import small


def _norm(x, scale):
    return scale * x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + small.CONFIG.norm_eps)


def _rotate(x, positions):
    half = x.shape[-1] // 2
    angle = positions[:, None] / small.CONFIG.rope_theta ** (jnp.arange(half) / half)
    first, second = x[:, :half], x[:, half:]
    return jnp.concatenate(
        [
            first * jnp.cos(angle) - second * jnp.sin(angle),
            second * jnp.cos(angle) + first * jnp.sin(angle),
        ],
        axis=-1,
    )


def _attend(weights, x, positions, visible):
    width, group = small.CONFIG.head_dim, small.CONFIG.n_heads // small.CONFIG.n_kv_heads
    query, key, value = (x @ weights[f"{name}_proj"]["kernel"] for name in "qkv")
    heads = []
    for head in range(small.CONFIG.n_heads):
        own, shared = slice(head * width, (head + 1) * width), slice(head // group * width, (head // group + 1) * width)
        scores = _rotate(query[:, own], positions) @ _rotate(key[:, shared], positions).T / width**0.5
        heads.append(jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1) @ value[:, shared])
    return jnp.concatenate(heads, axis=-1) @ weights["o_proj"]["kernel"]


def residuals(weights, batch, perturbation=None):
    """The residual stream before every layer and after the last, a list of L + 1 arrays [B, T, D]."""
    states = []
    for row in range(len(batch.tokens)):
        positions = jnp.asarray(batch.positions[row])
        segments = jnp.asarray(batch.segment_ids[row])
        visible = (segments[:, None] == segments[None]) & (
            jnp.arange(len(segments))[:, None] >= jnp.arange(len(segments))
        )
        x = weights["embed_tokens"]["embedding"][batch.tokens[row]]
        x = x if perturbation is None else x + perturbation[0, row]
        stream = [x]
        for number in range(small.CONFIG.n_layers):
            layer = jax.tree.map(lambda leaf, number=number: leaf[number], weights["layers"])
            x = x + _attend(layer["self_attn"], _norm(x, layer["input_layernorm"]["scale"]), positions, visible)
            middle = _norm(x, layer["post_attention_layernorm"]["scale"])
            gate, up, down = (layer["mlp"][f"{name}_proj"]["kernel"] for name in ("gate", "up", "down"))
            x = x + (jax.nn.silu(middle @ gate) * (middle @ up)) @ down
            x = x if perturbation is None else x + perturbation[number + 1, row]
            stream.append(x)
        states.append(stream)
    return [jnp.stack(rows) for rows in zip(*states, strict=True)]


def log_probs(weights, batch, perturbation=None):
    """Log probability of each answer token, [N]."""
    hidden = _norm(residuals(weights, batch, perturbation)[-1], weights["norm"]["scale"])
    return small.answer_log_probs(weights, hidden, batch)


def nll(weights, batch, perturbation=None):
    """Mean answer cross entropy."""
    return -log_probs(weights, batch, perturbation).mean()
