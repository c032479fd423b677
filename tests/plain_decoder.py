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


def residuals(weights, batch, perturbation=None, attention=None):
    """The residual stream before every layer and after the last, a list of L + 1 arrays [B, T, D].

    ``perturbation`` [L + 1, B, T, D] is added to it, ``attention`` [L, B, T, D] to what attention gives.
    """
    shape = (*batch.tokens.shape, small.CONFIG.d_model)
    if perturbation is None:
        perturbation = jnp.zeros((small.CONFIG.n_layers + 1, *shape))
    if attention is None:
        attention = jnp.zeros((small.CONFIG.n_layers, *shape))

    def one(tokens, segments, positions, added, attended):
        visible = (segments[:, None] == segments) & (jnp.arange(len(segments))[:, None] >= jnp.arange(len(segments)))
        stream = [weights["embed_tokens"]["embedding"][tokens] + added[0]]
        for number in range(small.CONFIG.n_layers):
            x, layer = stream[-1], jax.tree.map(lambda leaf, number=number: leaf[number], weights["layers"])
            read = _norm(x, layer["input_layernorm"]["scale"])
            x = x + _attend(layer["self_attn"], read, positions, visible) + attended[number]
            middle = _norm(x, layer["post_attention_layernorm"]["scale"])
            gate, up, down = (layer["mlp"][f"{name}_proj"]["kernel"] for name in ("gate", "up", "down"))
            stream.append(x + (jax.nn.silu(middle @ gate) * (middle @ up)) @ down + added[number + 1])
        return stream

    places = (jnp.asarray(leaf) for leaf in (batch.tokens, batch.segment_ids, batch.positions))
    return jax.vmap(one, in_axes=(0, 0, 0, 1, 1))(*places, perturbation, attention)


def hidden(weights, batch, perturbation=None, attention=None):
    """The states past the final norm, [B, T, D]."""
    return _norm(residuals(weights, batch, perturbation, attention)[-1], weights["norm"]["scale"])


def log_probs(weights, batch, perturbation=None, attention=None):
    """Log probability of each answer token, [N]."""
    return small.answer_log_probs(weights, hidden(weights, batch, perturbation, attention), batch)


def nll(weights, batch, perturbation=None, attention=None):
    """Mean answer cross entropy."""
    return -log_probs(weights, batch, perturbation, attention).mean()
