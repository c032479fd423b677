"""Adversaries of hidden states: the inner problem that latent adversarial training and Vaccine share.

A :class:`~immunax.models.steered.Perturbation` is what :meth:`~immunax.models.model.Model.apply` adds inside: to the residual
stream, ``[L + 1, B, T, D]``, row 0 the embedding and row i what layer i wrote, or to what each layer's attention gives,
``[L, B, T, D]``. An adversary of a few rows keeps only those, ``[S, B, T, D]``.

No gradient passes through the search for one. The gradient of the outer loss at the worst perturbation, held fixed, is
the gradient of the maximum (Danskin 1966), and that is what the papers use.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from immunax.data.batches import Batch
from immunax.inner.losses import answer_loss
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.models.model import Model, Params
from immunax.models.steered import Perturbation

PLACES = ("attention", "layer")
"""Where a layer is perturbed: in what its attention gives, before that is added to the stream, or in what the layer writes."""


def at_place(part: jax.Array, place: str) -> Perturbation:
    """The perturbation of every layer at one of :data:`PLACES`, ``[L, B, T, D]``."""
    if place == "attention":
        return Perturbation(attention=part)
    return Perturbation(stream=jnp.concatenate([jnp.zeros_like(part[:1]), part]))


def nothing(model: Model, tokens: jax.Array, rows: int) -> jax.Array:
    """A perturbation of zeros.

    Args:
      model: static.
      tokens: ``[B, T]``, what it is for.
      rows: S.

    Returns:
      ``[S, B, T, D]`` float32.
    """
    return jnp.zeros((rows, *tokens.shape, model.config.d_model), jnp.float32)


def spread(part: jax.Array, rows: tuple[int, ...], model: Model) -> Perturbation:
    """The perturbation of the stream whose row ``rows[i]`` is ``part[i]``.

    Args:
      part: ``[S, B, T, D]``.
      rows: S distinct rows of the L + 1.
      model: static.

    Returns:
      ``[L + 1, B, T, D]``, zero elsewhere.
    """
    whole = jnp.zeros((model.config.n_layers + 1, *part.shape[1:]), part.dtype)
    return Perturbation(stream=whole.at[jnp.array(rows)].set(part))


def within_ball(radius: float) -> optax.GradientTransformation:
    """The end of an optax chain that keeps every vector along the last axis within an L2 ball around zero.

    Args:
      radius: of the balls.

    Returns:
      A transformation without state, whose update leads to the projection of where the one before it led.
    """

    def update(updates, state, params=None):
        def project(step, at):
            moved = at + step
            norm = jnp.linalg.norm(moved, axis=-1, keepdims=True)
            return moved / jnp.maximum(norm / radius, 1.0) - at

        return jax.tree.map(project, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def projected_descent(
    loss: Callable[[jax.Array], jax.Array], optimizer: optax.GradientTransformation, start: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    """Projected gradient descent (Madry et al. 2017, arXiv:1706.06083) on the adversary's loss, as one scan.

    Args:
      loss: the adversary's, of a perturbation; must not depend on what the outer gradient is taken of.
      optimizer: ending in :func:`within_ball`.
      start: ``[S, B, T, D]``.
      steps: K.

    Returns:
      The perturbation after K steps, a constant to the outer gradient, and ``[K]`` losses, each taken before its step.
    """
    slope_at = slope_of(lambda part, _: loss(part))
    state, metrics = scan_steps(slope_at, optimizer, begin(optimizer, start), jnp.arange(steps))
    return jax.lax.stop_gradient(state.trained), metrics["loss"]


def layers_gradient(model: Model, params: Params, batch: Batch, place: str) -> tuple[jax.Array, jax.Array]:
    """The cross entropy of the answers, and its gradient by every layer's states, both constants to the outer gradient.

    Args:
      model: static.
      params: weights, plain or adapted.
      batch: ``[B, T]``.
      place: which states, one of :data:`PLACES`.

    Returns:
      A float32 scalar, in nats per token, and ``[L, B, T, D]`` float32.
    """
    fixed = jax.lax.stop_gradient(params)
    zeros = nothing(model, batch.tokens, model.config.n_layers)
    return jax.value_and_grad(lambda part: answer_loss(model, fixed, batch, at_place(part, place)))(zeros)


def scaled_to(gradient: jax.Array, radius: float) -> jax.Array:
    """``ρ · g / (‖g‖ + 1e-7)``, the ascent step of sharpness-aware minimisation (Foret et al. 2020, arXiv:2010.01412).

    Args:
      gradient: g, of any shape; the norm is over all of it.
      radius: ρ.

    Returns:
      The step; zero where the gradient is zero everywhere.
    """
    return gradient * (radius / (jnp.linalg.norm(gradient.reshape(-1)) + 1e-7))
