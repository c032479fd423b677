"""The decoder of tests/small.py written out: rotations as complex numbers, a Python loop over layers."""

import jax
import jax.numpy as jnp
import small


def _norm(x, scale):
    return scale * x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + small.CONFIG.norm_eps)


def _rotate(x, positions):
    half = x.shape[-1] // 2
    angle = positions[:, None, None] / small.CONFIG.rope_theta ** (jnp.arange(half) / half)
    turn = jnp.cos(angle) + 1j * jnp.sin(angle)
    turned = (x[..., :half] + 1j * x[..., half:]) * turn
    return jnp.concatenate([turned.real, turned.imag], axis=-1)


def _attend(weights, x, positions, visible):
    def heads(name, copies):
        return jnp.repeat((x @ weights[name]["kernel"]).reshape(len(x), -1, small.CONFIG.head_dim), copies, axis=1)

    group = small.CONFIG.n_heads // small.CONFIG.n_kv_heads
    query, key, value = heads("q_proj", 1), heads("k_proj", group), heads("v_proj", group)
    query, key = _rotate(query, positions), _rotate(key, positions)
    scores = jnp.einsum("thd,shd->hts", query, key) / small.CONFIG.head_dim**0.5
    read = jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
    return jnp.einsum("hts,shd->thd", read, value).reshape(len(x), -1) @ weights["o_proj"]["kernel"]


def residuals(weights, batch, perturbation=None, written=lambda x: x):
    """The residual stream before every layer and after the last, a list of L + 1 arrays [B, T, D].

    ``written`` changes what the embedding, attention and the MLP write to the stream.
    """
    if perturbation is None:
        perturbation = jnp.zeros((small.CONFIG.n_layers + 1, *batch.tokens.shape, small.CONFIG.d_model))

    def one(tokens, segments, positions, added):
        visible = (segments[:, None] == segments) & (jnp.arange(len(segments))[:, None] >= jnp.arange(len(segments)))
        stream = [written(weights["embed_tokens"]["embedding"][tokens]) + added[0]]
        for number in range(small.CONFIG.n_layers):
            x, layer = stream[-1], jax.tree.map(lambda leaf, number=number: leaf[number], weights["layers"])
            x = x + written(
                _attend(layer["self_attn"], _norm(x, layer["input_layernorm"]["scale"]), positions, visible)
            )
            middle = _norm(x, layer["post_attention_layernorm"]["scale"])
            gate, up, down = (layer["mlp"][f"{name}_proj"]["kernel"] for name in ("gate", "up", "down"))
            stream.append(x + written((jax.nn.silu(middle @ gate) * (middle @ up)) @ down) + added[number + 1])
        return stream

    places = (jnp.asarray(leaf) for leaf in (batch.tokens, batch.segment_ids, batch.positions))
    return jax.vmap(one, in_axes=(0, 0, 0, 1))(*places, perturbation)


def logits(weights, stream):
    """Next-token logits [..., V] of the stream after the last layer."""
    return _norm(stream, weights["norm"]["scale"]) @ weights["embed_tokens"]["embedding"].T


def log_probs(weights, batch, perturbation=None):
    """Log probability of each answer token, [N]."""
    hidden = _norm(residuals(weights, batch, perturbation)[-1], weights["norm"]["scale"])
    return small.answer_log_probs(weights, hidden, batch)


def nll(weights, batch, perturbation=None):
    """Mean answer cross entropy."""
    return -log_probs(weights, batch, perturbation).mean()
