"""Exact gradients through the steps of an inner loop, all of them or the last ones."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from immunax.inner.adapt import Adaptation, Estimator
from immunax.inner.estimators.first_order import FirstOrder
from immunax.inner.estimators.mixed_mode import forward_over_reverse
from immunax.inner.estimators.straight_through import advance, straight_through
from immunax.inner.state import TrainState, begin
from immunax.inner.step import Loss, SlopeAt, length, scan_steps, slope_of, split
from immunax.inner.trainable import WHOLE
from immunax.models.model import Params

REMAT = ("none", "steps", "segments")


@dataclass(frozen=True)
class Unrolled(Estimator):
    """Reverse mode through every step: the exact hypergradient (Maclaurin et al. 2015, arXiv:1502.03492).

    Attributes:
      remat: what the backward pass makes again. ``none``: nothing, every activation of every step is kept. ``steps``: a step's
        own work, K optimizer states are kept. ``segments``: also the states, so that about 2√K are kept, for one
        more pass over the steps; losses along the trajectory are the ends of the segments.
    """

    remat: str = "segments"

    def __post_init__(self):
        _check(self.remat)

    def follow(
        self, inner: Adaptation, params: Params, batches: Any, outer: Loss | None, checks: Any
    ) -> tuple[Params, jax.Array]:
        """See :meth:`~immunax.inner.adapt.Adaptation.along`."""
        start = begin(inner.optimizer, *WHOLE.split(params))
        end, value = _unroll(inner, self.slope_of(inner.loss), self.remat, start, batches, outer, checks)
        return WHOLE.join(end.trained, end.held), value

    def states_alive(self, steps: int, checks: int) -> int:
        """See :class:`~immunax.inner.adapt.Estimator`."""
        return _alive(self.remat, steps, checks)

    def slope_of(self, loss: Loss) -> SlopeAt:
        """The attacker's slope, differentiated as it is."""
        return slope_of(loss)


@dataclass(frozen=True)
class MixedMode(Unrolled):
    """The same gradient, each step differentiated forward over reverse (MixFlow-MG, Kemaev et al. 2025, arXiv:2505.00793).

    The derivative of a gradient along a cotangent is a Hessian-vector product. Forward over reverse makes it in one pass,
    without keeping the activations of the backward pass as reverse over reverse does.
    """

    def slope_of(self, loss: Loss) -> SlopeAt:
        """The attacker's slope, differentiated forward over reverse."""
        return forward_over_reverse(loss)


@dataclass(frozen=True)
class Truncated(Estimator):
    """Exact through the last steps, first order before them (Shaban et al. 2018, arXiv:1810.10667).

    ``last`` = 0 is :class:`~immunax.inner.estimators.first_order.FirstOrder`, ``last`` = K is :class:`MixedMode`.

    Attributes:
      last: k, how many steps the gradient passes through.
      remat: as :class:`Unrolled` has it.
    """

    last: int
    remat: str = "segments"

    def __post_init__(self):
        _check(self.remat)
        if self.last < 0:
            raise ValueError(f"last={self.last}: expected a number of steps, 0 or more")

    def states_alive(self, steps: int, checks: int) -> int:
        """See :class:`~immunax.inner.adapt.Estimator`."""
        return _alive(self.remat, min(steps, self.last), checks)

    def follow(
        self, inner: Adaptation, params: Params, batches: Any, outer: Loss | None, checks: Any
    ) -> tuple[Params, jax.Array]:
        """See :meth:`~immunax.inner.adapt.Adaptation.along`."""
        cut = max(0, inner.steps - self.last)
        if cut == inner.steps:
            return FirstOrder().follow(inner, params, batches, outer, checks)
        per_check = inner.steps // length(checks) if checks is not None else inner.steps
        passed, beyond = divmod(cut, per_check)
        trained, held = WHOLE.split(params)
        start, early = begin(inner.optimizer, trained, held), jnp.zeros(())
        if cut:
            met = cut - beyond
            before = _slice(batches, 0, met), outer if passed else None, _slice(checks, 0, passed)
            state, early = advance(inner, params, *before)
            state, _ = scan_steps(slope_of(inner.loss), inner.optimizer, state, _slice(batches, met, cut))
            state = jax.lax.stop_gradient(state)
            start = state._replace(trained=straight_through(state.trained, trained), held=held)
        # What the cut leaves of the segment that it falls into is shorter than the others.
        whole = cut + -beyond % per_check
        unroll = partial(_unroll, inner, forward_over_reverse(inner.loss), self.remat)
        late = jnp.zeros(())
        for begins, ends in ((cut, whole), (whole, inner.steps)):
            if begins < ends:
                asked = _slice(checks, begins // per_check, -(-ends // per_check))
                start, value = unroll(start, _slice(batches, begins, ends), outer, asked)
                late += value
        return WHOLE.join(start.trained, held), early + late


def _unroll(
    inner: Adaptation,
    slope_at: SlopeAt,
    remat: str,
    start: TrainState,
    batches: Any,
    outer: Loss | None,
    checks: Any,
) -> tuple[TrainState, jax.Array]:
    steps, held = length(batches), start.held
    keep = _kept if remat == "none" else jax.checkpoint
    outer_keep = jax.checkpoint if remat == "segments" else _kept

    @outer_keep
    def segment(moving, part):
        batches, check = part
        state, _ = scan_steps(slope_at, inner.optimizer, moving._replace(held=held), batches, keep)
        value = jnp.zeros(()) if outer is None else outer(WHOLE.join(state.trained, held), check)
        return state._replace(held=None), value

    count = length(checks) if checks is not None else _near_root(steps) if remat == "segments" else 1
    state, values = jax.lax.scan(segment, start._replace(held=None), (split(batches, count), checks))
    return state._replace(held=held), values.sum()


def _kept(function: Any) -> Any:
    return function


def _near_root(steps: int) -> int:
    """The divisor of ``steps`` that keeps the fewest states: one a segment, and those of one segment."""
    return min((count for count in range(1, steps + 1) if steps % count == 0), key=lambda count: count + steps // count)


def _slice(tree: Any, begin: int, end: int | None) -> Any:
    return jax.tree.map(lambda leaf: leaf[begin:end], tree)


def _alive(remat: str, through: int, checks: int) -> int:
    return max(1, through if remat != "segments" else checks + -(-through // checks))


def _check(remat: str) -> None:
    if remat not in REMAT:
        raise ValueError(f"remat={remat!r}: expected one of {', '.join(REMAT)}")
