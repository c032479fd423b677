"""One decoder for every family in :mod:`immunax.models.families`.

The families differ by what :class:`~immunax.models.config.DecoderConfig` says and by nothing else. Layers are stacked on
a leading axis and scanned, so a model of any depth compiles as fast as one of a single layer. A projection adds its
low-rank part when the ``lora`` collection holds one, so plain and adapted weights run through the same code.
"""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from immunax.models import rotary
from immunax.models.attention import attention, causal_attention
from immunax.models.cached_attention import cached_attention
from immunax.models.config import DecoderConfig
from immunax.models.kernels.fused import ATTENDED, fused_attention
from immunax.models.kernels.pattern import Pattern
from immunax.models.lora import dropped
from immunax.models.rounding import rounded
from immunax.models.steered import UNPERTURBED, Perturbation
from immunax.runtime.mesh import laid, split_rows

PROJECTED = "projected"
"""What a projection gives, and what an adapter makes of its input: of two products of which the sum is read, the sum is kept."""

REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.save_only_these_names(PROJECTED, ATTENDED),
}
"""What a layer keeps for the backward pass; ``none`` (no rematerialisation) keeps everything."""

_ACTIVATIONS = {"silu": nn.silu, "gelu_tanh": partial(nn.gelu, approximate=True)}


class Cache(NamedTuple):
    """Keys and values in S slots, of every layer, ``[L, B, n_kv_heads, S, head_dim]``, or without L of one."""

    keys: jax.Array
    values: jax.Array

    def after(self, new: "Cache", layer: jax.Array | int, slot: jax.Array | int) -> "Cache":
        """With those of one more token in a slot, ``[B, n_kv_heads, 1, head_dim]``, of one layer."""
        return jax.tree.map(lambda slots, each: _write(slots, each, layer, slot), self, new)

    def of(self, layer: jax.Array | int) -> "Cache":
        """One layer's."""
        return self if self.keys.ndim == 4 else jax.tree.map(lambda slots: slots[layer], self)


class Context(NamedTuple):
    """What every layer reads.

    Attributes:
      cos, sin: rotary angles ``[B, T, 1, head_dim]``.
      mask: ``[B, 1, T, S]``, which columns each token reads; None where a kernel goes by ``reading``.
      narrow: the mask of the layers that have the window, where others have none.
      reading: what a kernel is told in place of masks.
      slot: the first of the cache to write.
    """

    cos: jax.Array
    sin: jax.Array
    mask: jax.Array | None
    narrow: jax.Array | None = None
    reading: tuple[jax.Array, ...] | None = None
    slot: jax.Array | int = 0

    def mask_of(self, layer: jax.Array | int, windowed: tuple[bool, ...]) -> Any:
        """The mask of one layer."""
        if self.mask is None or self.narrow is None:
            return self.mask
        return jnp.where(jnp.array(windowed)[layer % len(windowed)], self.narrow, self.mask)


class Captured(NamedTuple):
    """Inside one layer (stacked over layers by the scan), None where not asked for.

    Attributes:
      residual: the stream it reads, ``[B, T, D]``.
      mlp: what its MLP adds to it, ``[B, T, D]``.
      cache: the keys and values that it makes, ``[B, n_kv_heads, T, head_dim]``.
    """

    residual: jax.Array | None
    mlp: jax.Array | None
    cache: Cache | None


class Linear(nn.Module):
    """``x @ kernel (+ bias) (+ (x @ a) @ b)``; ``a`` ``[in, r]`` and ``b`` ``[r, out]`` come from the ``lora`` collection.

    Where it holds a ``rate`` too, dropout of the input to ``a``.
    """

    features: int
    use_bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[..., in]`` to ``[..., features]``."""
        kernel = self.param("kernel", nn.initializers.normal(0.02), (x.shape[-1], self.features))
        y = x @ rounded(kernel, self.dtype)
        # Less than half the spacing of bfloat16 numbers, what is added would vanish beside a product if their sum were rounded to
        # the nearest. Products that come out in float32 would do as well, at twice the bytes.
        wide = jnp.promote_types(self.dtype, jnp.float32)
        if self.has_variable("lora", "a"):
            a, b = self.get_variable("lora", "a"), self.get_variable("lora", "b")
            if self.has_variable("lora", "rate"):
                x = dropped(x, self.get_variable("lora", "rate"), self.make_rng("dropout"))
            low = checkpoint_name(x @ a.astype(self.dtype), PROJECTED)
            y = y.astype(wide) + (low @ b.astype(self.dtype)).astype(wide)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(wide)
        return checkpoint_name(rounded(y, self.dtype), PROJECTED)


def rms_normalise(x: jax.Array, scale: jax.Array, config: DecoderConfig) -> jax.Array:
    """Root-mean-square norm over the last axis (Zhang & Sennrich 2019, arXiv:1910.07467), statistics in float32."""
    wide = x.astype(jnp.float32)
    normal = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + config.norm_eps)
    scale = scale if config.norm_offset == 0 else config.norm_offset + scale
    return (scale * normal).astype(x.dtype)


class RMSNorm(nn.Module):
    """:func:`rms_normalise` with a learned scale."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises ``[..., D]``; it starts as one that scales by 1."""
        start = nn.initializers.constant(1 - self.config.norm_offset)
        return rms_normalise(x, self.param("scale", start, (x.shape[-1],)), self.config)


class Attention(nn.Module):
    """Grouped-query causal attention; with a cache, of one token a row, which is written there and reads all slots."""

    config: DecoderConfig
    dtype: Any
    implementation: str

    @nn.compact
    def __call__(
        self, x: jax.Array, context: Context, cache: Cache | None, layer: jax.Array | int
    ) -> tuple[jax.Array, Cache]:
        """Maps ``[B, T, D]`` to ``[B, T, D]`` and the cache to that with a slot more filled, or to what would fill one."""
        c = self.config

        def heads(name: str, count: int, norm: bool) -> jax.Array:
            flat = Linear(count * c.head_dim, c.qkv_bias, self.dtype, name=f"{name}_proj")(x)
            split = flat.reshape(*x.shape[:2], count, c.head_dim)
            if not norm:
                return split
            return RMSNorm(c, name=f"{name}_norm")(flat if c.joint_qk_norm else split).reshape(split.shape)

        query, key = heads("q", c.n_heads, c.qk_norm), heads("k", c.n_kv_heads, c.qk_norm)
        value = heads("v", c.n_kv_heads, norm=False)
        query, key = (rotary.rotate(part, context.cos, context.sin) for part in (query, key))
        scale = (c.query_pre_attn_scalar or c.head_dim) ** -0.5
        made = Cache(key.swapaxes(1, 2), value.swapaxes(1, 2))
        if cache is not None:
            made, mask = cache.after(made, layer, context.slot), context.mask_of(layer, c.windowed)
            attended = cached_attention(query, *made.of(layer), mask, scale, c.attention_cap)
        elif context.reading is not None:
            attended = self._fused(query, key, value, context.reading, layer, scale)
        else:
            attend = causal_attention if self.implementation == "blocks" else attention
            attended = attend(query, key, value, context.mask_of(layer, c.windowed), scale, c.attention_cap)
            attended = checkpoint_name(attended, ATTENDED)
        flat = attended.reshape(*x.shape[:2], c.n_heads * c.head_dim)
        return Linear(c.d_model, dtype=self.dtype, name="o_proj")(flat), made

    def _fused(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        reading: tuple[jax.Array, ...],
        layer: jax.Array | int,
        scale: float,
    ) -> jax.Array:
        """By a kernel; where some layers have the window and some do not, by the one of two programs that the layer takes."""
        c, inputs = self.config, (query, key, value, reading)
        wide, narrow = (
            partial(fused_attention, self.implementation, Pattern(scale, c.attention_cap, window))
            for window in (None, c.sliding_window)
        )
        if c.sliding_window is None or not any(c.windowed):
            return wide(*inputs)
        if all(c.windowed):
            return narrow(*inputs)
        return jax.lax.cond(jnp.array(c.windowed)[layer % len(c.windowed)], narrow, wide, *inputs)


def _write(slots: jax.Array, new: jax.Array, layer: jax.Array | int, slot: jax.Array | int) -> jax.Array:
    above = slots.ndim - new.ndim
    new = new.reshape((1,) * above + new.shape).astype(slots.dtype)
    return jax.lax.dynamic_update_slice(slots, new, (layer,) * above + (0, 0, slot, 0))


class MLP(nn.Module):
    """The gated unit ``down(activation(gate(x)) * up(x))`` (Shazeer 2020, arXiv:2002.05202)."""

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, T, D]`` to ``[B, T, D]``."""
        flat = x.reshape(-1, x.shape[-1])
        gate = Linear(self.config.d_ff, dtype=self.dtype, name="gate_proj")(flat)
        up = Linear(self.config.d_ff, dtype=self.dtype, name="up_proj")(flat)
        inner = _ACTIVATIONS[self.config.activation](gate) * up
        return Linear(self.config.d_model, dtype=self.dtype, name="down_proj")(inner).reshape(x.shape)


class Layer(nn.Module):
    """One decoder layer, in the form that a scan over layers takes."""

    config: DecoderConfig
    dtype: Any
    attention: str
    capture: bool = False
    keep: bool = False

    @nn.compact
    def __call__(
        self, carry: tuple[jax.Array, Cache | None], part: tuple[jax.Array | int, Perturbation], context: Context
    ):
        """Maps (stream ``[B, T, D]``, cache) to the same, and gives what is asked for of :class:`Captured`.

        ``part`` is the layer's number and its rows of the perturbation: to the stream before the layer reads it, and to what its
        attention gives.
        """
        x, cache = carry
        layer, added = part
        if added.stream is not None:
            x = x + added.stream.astype(x.dtype)
        c = self.config

        def norm(there: bool, name: str, values: jax.Array) -> jax.Array:
            return RMSNorm(c, name=name)(values) if there else values

        read = norm(c.pre_norm, "input_layernorm", x).astype(self.dtype)
        attended, made = Attention(c, self.dtype, self.attention, name="self_attn")(read, context, cache, layer)
        if added.attention is not None:
            attended = attended.astype(x.dtype) + added.attention.astype(x.dtype)
        middle = x + norm(c.post_norm, "attention_output_norm", attended)
        read = norm(c.pre_norm, "post_attention_layernorm", middle).astype(self.dtype)
        written = norm(c.post_norm, "mlp_output_norm", MLP(c, self.dtype, name="mlp")(read))
        captured = Captured(*(x, written) if self.capture else (None, None), made if self.keep else None)
        return (split_rows(middle + written), None if cache is None else made), captured


class Decoder(nn.Module):
    """Embedding, scanned layers, final norm; the output projection is left to the caller.

    Given a list of caches, one a layer, the layers are not scanned but written out, each with weights of its own.
    """

    config: DecoderConfig
    remat: str = "none"
    dtype: Any = jnp.float32
    attention: str = "blocks"
    capture: bool = False
    keep: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        context: Context,
        cache: Cache | list[Cache] | None = None,
        perturbation: Perturbation = UNPERTURBED,
        prompt: jax.Array | None = None,
    ):
        """Maps tokens ``[B, T]`` to the stream before and after the final norm ``[B, T, D]``, the cache, and captures.

        ``prompt`` ``[B, T, D]`` is added to the embeddings as the table has them.
        """
        c = self.config
        table = nn.Embed(c.vocab_size, c.d_model, embedding_init=nn.initializers.normal(0.02), name="embed_tokens")
        # The table is split by width over fsdp, the stream by rows over data and fsdp. Told of the step between, XLA exchanges
        # along fsdp; left alone where both axes are in use, it sends the whole stream's gradient to every device.
        embedded = laid(rounded(table(tokens), self.dtype, tokens), "data", None, "fsdp")
        if not perturbation.empty:
            embedded = embedded.astype(jnp.promote_types(self.dtype, jnp.float32))
        if prompt is not None:
            embedded = embedded + prompt.astype(embedded.dtype)
        if c.scale_embeddings:
            embedded = embedded * jnp.asarray(c.d_model**0.5, self.dtype)
        whole = perturbation.stream
        before = perturbation if whole is None else perturbation._replace(stream=whole[:-1])
        layers: Any = self._written_out if isinstance(cache, list) else self._scanned
        (stream, cache), captured = layers((split_rows(embedded), cache), before, context)
        if whole is not None:
            stream = stream + whole[-1].astype(stream.dtype)
        hidden = RMSNorm(c, name="norm")(stream).astype(self.dtype)
        if self.is_initializing() and not c.tie_embeddings:
            Linear(c.vocab_size, dtype=self.dtype, name="lm_head")(hidden)
        return stream, hidden, cache, captured

    @nn.nowrap
    def _scanned(self, carry: tuple[jax.Array, Cache | None], before: Perturbation, context: Context):
        depth = self.config.n_layers
        layer = Layer if self.remat == "none" else nn.remat(Layer, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        stack = nn.scan(
            layer,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),  # pyright: ignore[reportArgumentType]
            length=depth,
        )(self.config, self.dtype, self.attention, self.capture, self.keep, name="layers")
        return stack(carry, (jnp.arange(depth), before), context)

    @nn.nowrap
    def _written_out(self, carry: tuple[jax.Array, list[Cache]], before: Perturbation, context: Context):
        stream, caches = carry
        filled = []
        for number, cache in enumerate(caches):
            own = jax.tree.map(lambda rows, number=number: rows[number], before)
            layer = Layer(self.config, self.dtype, self.attention, name=layer_name(number))
            (stream, cache), _ = layer((stream, cache), (number, own), context)
            filled.append(cache)
        return (stream, filled), None


def layer_name(number: int) -> str:
    """Of a layer whose weights are its own, not a row of all layers' in ``layers``."""
    return f"layers_{number}"
