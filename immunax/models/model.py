"""The model as pure functions of its weights."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from immunax.models import rotary
from immunax.models.attention import causal_mask
from immunax.models.compute_copy import compute_copy
from immunax.models.config import DecoderConfig
from immunax.models.decoder import REMAT_POLICIES, Cache, Context, Decoder, layer_name, rms_normalise
from immunax.models.families import FAMILIES
from immunax.models.kernels.choice import ATTENTION, MASKED
from immunax.models.kernels.fused import KERNELS
from immunax.models.kernels.pattern import stretches
from immunax.models.lora import Adapted
from immunax.models.rounding import rounded
from immunax.models.steered import UNPERTURBED, Perturbation, Steered
from immunax.models.unembedding import CHUNK, Unembedding
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.mesh import split_parameters

DTYPES = ("float32", "bfloat16", "float64")
"""Of a computation; float64 needs ``jax_enable_x64``, and float16 would need its losses scaled."""

DECODINGS = ("scanned", "unrolled")
"""How a token passes the layers where answers are decoded, see :attr:`Model.decoding`."""


def decoding_on(platform: str) -> str:
    """Which of :data:`DECODINGS` suits a platform, such as ``gpu``.

    A GPU's compiler copies each layer's weights out of the stack that a scan reads, at every token, and launches the kernels of a
    layer by themselves; written out, all of a token is one graph. A TPU's compiler reads the stack in place. On a CPU programs
    would take longer to compile.
    """
    return "unrolled" if platform == "gpu" else "scanned"


Params = Any
"""A nested dict of arrays, an :class:`~immunax.models.lora.Adapted`, or a :class:`~immunax.models.steered.Steered`."""


class Outputs(NamedTuple):
    """One forward pass.

    Attributes:
      hidden: ``[B, T, D]`` after the final norm; :meth:`Model.logits` of it gives the predictions.
      residuals: ``[L + 1, B, T, D]``, the residual stream before every layer and after the last; None unless captured.
      mlp: ``[L, B, T, D]``, what every MLP adds to the stream; None unless captured.
    """

    hidden: jax.Array
    residuals: Any = None
    mlp: Any = None


@dataclass(frozen=True)
class Model:
    """A decoder's static description; every method is a pure function of the weights it is given.

    Attributes:
      config: shape and variant.
      remat: ``none``, ``dots`` or ``full``: what each layer recomputes in the backward pass.
      dtype: of the computation; weights keep theirs (float32 masters).
      attention: its implementation for whole sequences, one of :data:`~immunax.models.kernels.choice.ATTENTION`.
      chunk: hidden states projected on the vocabulary at once by a loss.
      decoding: how a token passes the layers where answers are decoded. ``scanned``: one program of a layer, in turns.
        ``unrolled``: one of all, in which a GPU copies no weight at a token; it compiles longer and holds the weights once more.
    """

    config: DecoderConfig
    remat: str = "none"
    dtype: str = "float32"
    attention: str = "blocks"
    chunk: int = CHUNK
    decoding: str = "scanned"

    def __post_init__(self):
        for name, value, known in (
            ("remat", self.remat, ("none", *REMAT_POLICIES)),
            ("dtype", self.dtype, DTYPES),
            ("attention", self.attention, ATTENTION),
            ("decoding", self.decoding, DECODINGS),
            ("family", self.config.family, tuple(FAMILIES)),
        ):
            if value not in known:
                raise UserError(f"{name}={value!r}: expected one of {', '.join(known)}.{nearest(value, known)}")

    def init(self, key: jax.Array) -> Params:
        """Random weights: normal(0, 0.02) matrices, unit norms, zero biases, all float32."""
        token = jnp.ones((1, 1), jnp.int32)
        plain = replace(self, attention="xla")
        return plain._graph().init(key, token, plain._whole(token, token))["params"]

    def apply(
        self,
        params: Params,
        tokens: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        *,
        capture: bool = False,
        perturbation: Perturbation = UNPERTURBED,
    ) -> Outputs:
        """One forward pass over whole sequences.

        Args:
          params: weights, plain or adapted.
          tokens: ``[B, T]`` int.
          segment_ids: ``[B, T]`` int; tokens attend within their segment only, 0 is padding. A kernel wants each segment in one
          stretch; cuDNN is told of 17 of a row, padding included, and the states behind them are NaN.
          positions: ``[B, T]`` int, restarting at each segment.
          capture: also give the residual stream and the MLP outputs.
          perturbation: of the stream, row by row as :attr:`Outputs.residuals` has them (which then hold the sum), and of what
            attention gives; an empty one costs nothing.

        Returns:
          :class:`Outputs`. Logits are not computed: ``[B, T, V]`` is by far the largest array, and few callers need it whole.
        """
        context = self._whole(segment_ids, positions)
        params = split_parameters(params)
        stream, hidden, _, captured = self._graph(capture).apply(
            _variables(params),
            tokens,
            context,
            rngs=_rngs(params, tokens),
            **_steering(params, tokens, perturbation),
        )
        most = None if self.attention in MASKED else KERNELS[self.attention].most
        if most is not None:
            # The kernel was not told of the rest: better no number than a wrong one.
            hidden = jnp.where((stretches(segment_ids) < most)[..., None], hidden, jnp.nan)
        if not capture:
            return Outputs(hidden)
        return Outputs(hidden, jnp.concatenate([captured.residual, stream[None]]), captured.mlp)

    def prefill(
        self, params: Params, tokens: jax.Array, segment_ids: jax.Array, positions: jax.Array, slots: int
    ) -> tuple[jax.Array, Cache | list[Cache]]:
        """:meth:`apply` to whole prompts that also keeps keys and values, for :meth:`step` to go on from.

        Args:
          params: weights, plain or adapted.
          tokens, segment_ids, positions: ``[B, T]`` int.
          slots: S of the cache, at least T; the prompts take the first T.

        Returns:
          ``[B, T, D]`` hidden states after the final norm, and the cache.
        """
        context = self._whole(segment_ids, positions)
        params = split_parameters(params)
        graph = self._graph(keep=True)
        _, hidden, _, captured = graph.apply(_variables(params), tokens, context, **_steering(params, tokens))
        room = [(0, 0)] * 3 + [(0, slots - tokens.shape[1]), (0, 0)]
        cache = jax.tree.map(lambda made: jnp.pad(made.astype(self.dtype), room), captured.cache)
        if self.decoding == "scanned":
            return hidden, cache
        return hidden, [cache.of(layer) for layer in range(self.config.n_layers)]

    def for_steps(self, params: Params) -> Params:
        """Weights as :meth:`step` takes them, to be made once before many steps."""
        if self.decoding == "scanned":
            return params
        if isinstance(params, (Adapted, Steered)):
            params = params._replace(base=self.for_steps(params.base))
            return params._replace(lora=self._apart(params.lora)) if isinstance(params, Adapted) else params
        return self._apart(compute_copy(params, self.dtype))

    def _apart(self, tree: Any) -> Any:
        layers = {
            layer_name(number): jax.tree.map(lambda leaf, number=number: leaf[number], tree["layers"])
            for number in range(self.config.n_layers)
        }
        return {name: part for name, part in tree.items() if name != "layers"} | layers

    def step(
        self,
        params: Params,
        tokens: jax.Array,
        positions: jax.Array,
        readable: jax.Array,
        slot_positions: jax.Array,
        cache: Cache | list[Cache],
        slot: jax.Array | int,
    ) -> tuple[jax.Array, Cache | list[Cache]]:
        """A forward pass of one more token a row.

        Args:
          params: weights, from :meth:`for_steps`.
          tokens, positions: ``[B]`` int.
          readable: ``[B, S]`` bool, which slots each token may read, whatever their distance; its own among them.
          slot_positions: ``[B, S]`` int, of the tokens in the cache.
          cache: from :meth:`prefill` or a step before.
          slot: where the new keys and values go.

        Returns:
          ``[B, D]`` hidden states after the final norm, and the cache.
        """
        back = positions[:, None] - slot_positions
        context = self._context(positions[:, None], readable[:, None, None], back[:, None, None], slot)
        _, hidden, cache, _ = self._graph().apply(
            _variables(params), tokens[:, None], context, cache, **_steering(params, tokens[:, None])
        )
        return hidden[:, 0], cache

    def unembedding(self, params: Params) -> Unembedding:
        """The output projection, in the dtype of the computation."""
        base = _base(params)
        base = split_parameters({name: base[name] for name in ("embed_tokens", "lm_head") if name in base})
        name, leaf = ("embed_tokens", "embedding") if self.config.tie_embeddings else ("lm_head", "kernel")
        matrix = rounded(base[name][leaf], jnp.dtype(self.dtype))
        return Unembedding(matrix.T if self.config.tie_embeddings else matrix, self.config.logit_cap, self.chunk)

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Next-token logits ``[..., V]`` in float32 of hidden states ``[..., D]`` that passed the final norm."""
        return self.unembedding(params).logits(hidden)

    def final_norm(self, params: Params, residual: jax.Array) -> jax.Array:
        """Puts any residual stream ``[..., D]`` in the space that :meth:`logits` reads (the logit lens)."""
        return rms_normalise(residual, _base(params)["norm"]["scale"], self.config)

    def _graph(self, capture: bool = False, keep: bool = False) -> Any:
        return Decoder(self.config, self.remat, jnp.dtype(self.dtype), self.attention, capture, keep)

    def _whole(self, segment_ids: jax.Array, positions: jax.Array) -> Context:
        """Of whole sequences: masks, made once for all layers, or what a kernel needs in place of them."""
        c = self.config
        angles = rotary.angles(c, positions)
        if self.attention not in MASKED:
            return Context(*angles, None, reading=KERNELS[self.attention].read(segment_ids))
        near = None if c.sliding_window is None else causal_mask(segment_ids, c.sliding_window)
        if near is not None and all(c.windowed):
            return Context(*angles, near)
        return Context(*angles, causal_mask(segment_ids), near)

    def _context(
        self, positions: jax.Array, readable: jax.Array, back: jax.Array, slot: jax.Array | int = 0
    ) -> Context:
        """``back``, which broadcasts to the mask ``readable``, is how many tokens each column lies before each query."""
        c = self.config
        mask, narrow = readable, None
        if c.sliding_window is not None:
            narrow = readable & (back < c.sliding_window)
            mask, narrow = (narrow, None) if all(c.windowed) else (readable, narrow)
        return Context(*rotary.angles(c, positions), mask, narrow, slot=slot)


def _variables(params: Params) -> dict:
    adapters = {"lora": params.scaled()} if isinstance(params, Adapted) else {}
    return {"params": _base(params), **adapters}


def _rngs(params: Params, tokens: jax.Array) -> dict:
    dropout = params.dropout if isinstance(params, Adapted) else None
    return {} if dropout is None else {"dropout": dropout.masks(tokens)}


def _base(params: Params) -> Any:
    return params.base if isinstance(params, (Adapted, Steered)) else params


def _steering(params: Params, tokens: jax.Array, perturbation: Perturbation = UNPERTURBED) -> dict:
    if not isinstance(params, Steered):
        return {"perturbation": perturbation}
    return {"perturbation": params.beside(perturbation), "prompt": params.embedded(tokens)}
