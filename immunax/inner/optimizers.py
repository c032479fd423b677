"""Optimizers that YAML can name, built on optax.

Every field that is a number may be data: :meth:`Optimizer.build` keeps the learning rates of all steps, and whatever numbers it
is given, in the optimizer's state. So members of a population that differ in them share one program, each with a state of its
own, and a new optimizer has nothing to do for it but to branch on no number.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from immunax.runtime.errors import UserError, nearest

SCHEDULES = ("constant", "linear", "cosine", "step")

OF_RATES = ("learning_rate", "schedule", "warmup", "warmup_from_zero", "gamma", "stages")
"""Fields that :meth:`Optimizer.rates` is made of; nothing else reads them."""

CLIP = "max_grad_norm"
"""The field that is data in every program: to clip at infinity is not to clip, and the norm is told anyway."""

UNDECAYED = ("scale", "bias")
"""Leaves that weight decay leaves alone unless told: those of norms, and biases, stacked over layers or not."""


class Tuned(NamedTuple):
    """The state of an optimizer with its numbers beside it.

    Attributes:
      count: int32, updates done.
      numbers: by the name of a field; ``learning_rate`` ``[K]``, by step, and scalars.
      rule: the state of :meth:`Optimizer.rule`.
    """

    count: jax.Array
    numbers: Mapping[str, jax.Array]
    rule: optax.OptState


@dataclass(frozen=True)
class Optimizer(ABC):
    """What all optimizers share: a schedule, the clipping of gradients, decoupled decay. Its subclasses give the direction.

    Attributes:
      learning_rate: the peak.
      schedule: after warm-up ``constant``; ``linear`` or ``cosine`` down to zero at the step behind the last; or ``step``, down a
        stair.
      warmup: steps over which the rate rises to the peak: a whole number of them, or a fraction of all.
      warmup_from_zero: its rates are ``t / warm-up``, as ``transformers`` has them, whose first step moves nothing and which
        rounds a fraction up; otherwise ``(t + 1) / warm-up``, as schedule-free optimizers have them.
      gamma: of the schedule ``step``, the factor from one stage to the next (``StepLR`` of torch).
      stages: of the schedule ``step``, how many equal stages there are: one an epoch makes it a decay by epochs.
      weight_decay: decoupled decay, of everything but norms and biases.
      decays_norms: norms and biases decay too, as where torch's AdamW is given all parameters; transformers' Trainer spares them.
      max_grad_norm: gradients are scaled down to this global norm; None leaves them as they are.
      restart_every: the rule's state is made anew before the first of every so many steps, while the schedule goes on; None
        keeps it.
    """

    learning_rate: float = 5e-5
    schedule: str = "constant"
    warmup: int | float = 0.0
    warmup_from_zero: bool = False
    gamma: float = 0.85
    stages: int = 1
    weight_decay: float = 0.0
    decays_norms: bool = False
    max_grad_norm: float | None = 1.0
    restart_every: int | None = None

    keeps_zeros: ClassVar[bool] = True
    """Whether zeros with zero gradients change no other weight's update, so that adapters may be widened with zeros."""

    scale_free: ClassVar[bool] = True
    """Whether its steps are the same whatever the scale of all gradients, so that clipping takes nothing from them."""

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise UserError(
                f"schedule={self.schedule!r}: expected one of {', '.join(SCHEDULES)}.{nearest(self.schedule, SCHEDULES)}"
            )
        if self.warmup < 0 or (isinstance(self.warmup, float) and self.warmup >= 1):
            raise UserError(
                f"warmup={self.warmup}: expected a fraction of the steps, 0 <= warmup < 1, or a whole number of steps."
            )
        for name in ("stages", "restart_every"):
            if isinstance(value := getattr(self, name), int) and value < 1:
                raise UserError(f"{name}={value}: expected at least 1.")

    def build(self, steps: int, numbers: Mapping[str, Any] | None = None) -> optax.GradientTransformation:
        """The optax transformation for a run of ``steps`` steps.

        Args:
          steps: K.
          numbers: what its states carry in place of fields of this optimizer, by their names: ``learning_rate`` ``[K]``, by step,
            and scalars. A state made with some is led on by the transformation of any optimizer with the same :meth:`form`.
        """

        def init(params: optax.Params) -> Tuned:
            given = jax.tree.map(jnp.asarray, {"learning_rate": self.rates(steps), **(numbers or {})})
            return Tuned(jnp.int32(0), given, self._with(given, 0)._clipped().init(params))

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Tuned]:
            each = self._with(state.numbers, state.count)
            updates, rule = each._clipped().update(updates, each._restarted(state, params), params)
            return updates, Tuned(state.count + 1, state.numbers, rule)

        return optax.GradientTransformation(init, update)

    def _with(self, numbers: Mapping[str, Any], step: jax.Array | int) -> Self:
        return replace(self, **{**numbers, "learning_rate": numbers["learning_rate"][step]})

    def _clipped(self) -> optax.GradientTransformation:
        clip = optax.identity() if self.max_grad_norm is None else optax.clip_by_global_norm(self.max_grad_norm)
        return optax.chain(clip, self.rule())

    def _restarted(self, state: Tuned, params: optax.Params) -> optax.OptState:
        if self.restart_every is None:
            return state.rule
        due, fresh = state.count % self.restart_every == 0, self._clipped().init(params)
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), fresh, state.rule)

    def numbers(self, steps: int, names: Iterable[str]) -> dict[str, Any]:
        """What :meth:`build` takes of this optimizer for a run of ``steps`` steps: its learning rates, and the fields named."""
        return {"learning_rate": self.rates(steps), **{name: np.float32(self.number(name)) for name in names}}

    def number(self, name: str) -> float | None:
        """A field as a number that may be data; None where it is none."""
        value = math.inf if name == CLIP and self.max_grad_norm is None else getattr(self, name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def form(self, names: Iterable[str]) -> Self:
        """This optimizer without :meth:`numbers`: equal for all members of one program."""
        blank = {each.name: each.default for each in fields(self)}
        return replace(self, **{name: blank[name] for name in (*OF_RATES, *names)})

    def rule(self) -> optax.GradientTransformation:
        """The update of clipped gradients at the learning rate, one number; every number may be traced."""
        return optax.chain(self.direction(), self.decayed())

    def decayed(self) -> optax.GradientTransformation:
        """The end of a rule: decoupled decay, and the step against the direction."""
        decay = optax.add_decayed_weights(self.weight_decay, None if self.decays_norms else decays)
        return optax.chain(decay, optax.scale_by_learning_rate(self.learning_rate))

    @abstractmethod
    def direction(self) -> optax.GradientTransformation:
        """The direction of ascent that clipped gradients make."""

    def rates(self, steps: int) -> jax.Array | np.ndarray:
        """The learning rates of all steps, ``[K]``, rounded as a compiled step would round its own."""
        if self.schedule == "constant" and not self._rising(steps) and isinstance(self.learning_rate, int | float):
            return np.full(steps, self.learning_rate, jnp.result_type(float))
        scheduled = {name: getattr(self, name) for name in OF_RATES if name != "learning_rate"}
        return _rates(replace(AdamW(), **scheduled), steps, self.learning_rate)

    def rate(self, steps: int) -> optax.Schedule:
        """Learning rate by step, from 0."""
        rising = self._rising(steps)
        after = self._after_warmup(max(1, steps - rising))
        if not rising:
            return after
        first = 0 if self.warmup_from_zero else 1
        return optax.join_schedules([lambda step: self.learning_rate * (step + first) / rising, after], [rising])

    def _rising(self, steps: int) -> int:
        if isinstance(self.warmup, int):
            return self.warmup
        return math.ceil(self.warmup * steps) if self.warmup_from_zero else round(self.warmup * steps)

    def _after_warmup(self, steps: int) -> optax.Schedule:
        if self.schedule == "linear":
            return optax.linear_schedule(self.learning_rate, 0.0, steps)
        if self.schedule == "cosine":
            return optax.cosine_decay_schedule(self.learning_rate, steps)
        if self.schedule == "step":
            return lambda step: self.learning_rate * self.gamma ** jnp.floor_divide(step * self.stages, steps)
        return optax.constant_schedule(self.learning_rate)


@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101).

    Attributes:
      b1, b2: decay rates of the moments.
      eps: added to the root of the second moment.
      eps_root: added under the root of the second moment. Above zero where a gradient passes through the update: a root has no
        derivative at zero, where the moments of an adapter's first factor start.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0

    def direction(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        return optax.scale_by_adam(self.b1, self.b2, self.eps, self.eps_root)


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent.

    Attributes:
      momentum: decay rate of the sum of gradients; a plain 0 keeps none.
    """

    scale_free: ClassVar[bool] = False

    momentum: float = 0.0

    def direction(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        none = isinstance(self.momentum, int | float) and self.momentum == 0
        return optax.identity() if none else optax.trace(self.momentum)


@dataclass(frozen=True)
class Adafactor(Optimizer):
    """Adafactor without relative step sizes (Shazeer & Stern 2018, arXiv:1804.04235): second moments of rows and columns."""

    keeps_zeros: ClassVar[bool] = False  # it clips by the root mean square of whole leaves

    def direction(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        # Without a rate of its own, optax's rule gives the descent direction.
        return optax.chain(optax.adafactor(None, multiply_by_parameter_scale=False), optax.scale(-1.0))


@dataclass(frozen=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024): orthogonalised momentum for the matrices of the layers, Nesterov's AdamW for the rest.

    Updates have the size that AdamW's have (Liu et al. 2025, arXiv:2502.16982), so that its learning rates carry over.

    Attributes:
      momentum: decay rate of the sum of gradients.
      eps_root: as :class:`AdamW` has it.
    """

    momentum: float = 0.95
    eps_root: float = 0.0

    def direction(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        descent = optax.contrib.muon(
            1.0,
            beta=self.momentum,
            adam_eps_root=self.eps_root,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )
        return optax.chain(descent, optax.scale(-1.0))


@dataclass(frozen=True)
class ScheduleFree(Optimizer):
    """Schedule-free AdamW (Defazio et al. 2024, arXiv:2405.15682).

    The weights of a loop are the points y where gradients are taken, which lie near the average x that the paper evaluates; the
    code of TAR, which trains by it, releases y too. With the schedule ``constant`` the numbers are those of the authors' package.

    Attributes:
      b1: how near: ``y = b1 x + (1 - b1) z``.
      b2: decay rate of the second moment.
      eps: as :class:`AdamW` has it.
      eps_root: as :class:`AdamW` has it.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0

    def direction(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`; the momentum is in the average."""
        return optax.scale_by_adam(0.0, self.b2, self.eps, self.eps_root)

    def rule(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`; the rate of a step is that of z and the weight of z in x."""
        base = optax.chain(self.direction(), self.decayed())
        return optax.contrib.schedule_free(base, self.learning_rate, b1=self.b1)


@partial(jax.jit, static_argnums=(0, 1))
def _rates(schedule: Optimizer, steps: int, peak: jax.Array | float) -> jax.Array:
    """The learning rates of a schedule; its peak is data, so that a grid of peaks is one program."""
    rate = replace(schedule, learning_rate=peak).rate(steps)
    return jnp.asarray(jax.vmap(rate)(jnp.arange(steps)), float)


def decays(params: Any) -> Any:
    """Which leaves decay, bools: all but those whose last key is one of ``UNDECAYED``."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not path or getattr(path[-1], "key", None) not in UNDECAYED, params
    )


def _matrices(weights: Any) -> Any:
    """Stacked matrices have three axes, ``[L, in, out]``; stacked vectors, the embedding and the output have two."""
    numbers = optax.contrib.MuonDimensionNumbers(1, 2)
    return jax.tree.map(lambda leaf: numbers if leaf.ndim == 3 else None, weights)
