"""Optimizers that YAML can name, built on optax.

Every field that is a number may be data: :meth:`Optimizer.build` keeps the learning rates of all steps, and whatever numbers it
is given, in the optimizer's state. So members of a population that differ in them share one program, each with a state of its
own, and a new optimizer has nothing to do for it but to branch on no number.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from immunax.runtime.errors import UserError, nearest

SCHEDULES = ("constant", "linear", "cosine")

UNDECAYED = ("scale", "bias")
"""Leaves that weight decay leaves alone: those of norms, and biases, stacked over layers or not."""


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
      schedule: after warm-up ``constant``, or ``linear`` or ``cosine`` down to zero at the last step.
      warmup: fraction of the steps over which the rate rises from zero.
      weight_decay: decoupled decay, of everything but norms and biases.
      max_grad_norm: gradients are scaled down to this global norm; None leaves them as they are.
    """

    learning_rate: Any = 5e-5
    schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float | None = 1.0

    keeps_zeros: ClassVar[bool] = True
    """Whether zeros with zero gradients change no other weight's update, so that adapters may be widened with zeros."""

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise UserError(
                f"schedule={self.schedule!r}: expected one of {', '.join(SCHEDULES)}.{nearest(self.schedule, SCHEDULES)}"
            )
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup={self.warmup}: expected a fraction of the steps, 0 <= warmup < 1.")

    def build(self, steps: int, numbers: Mapping[str, Any] | None = None) -> optax.GradientTransformation:
        """The optax transformation for a run of ``steps`` steps.

        Args:
          steps: K.
          numbers: what its states carry in place of fields of this optimizer, by their names: ``learning_rate`` ``[K]``, by step,
            and scalars. A state made with some is led on by the transformation of any optimizer with the same :meth:`form`.
        """

        def init(params: optax.Params) -> Tuned:
            given = jax.tree.map(jnp.asarray, {"learning_rate": self.rates(steps), **(numbers or {})})
            return Tuned(jnp.int32(0), given, self._at(given, 0).init(params))

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Tuned]:
            updates, rule = self._at(state.numbers, state.count).update(updates, state.rule, params)
            return updates, Tuned(state.count + 1, state.numbers, rule)

        return optax.GradientTransformation(init, update)

    def _at(self, numbers: Mapping[str, Any], step: jax.Array | int) -> optax.GradientTransformation:
        each = replace(self, **{**numbers, "learning_rate": numbers["learning_rate"][step]})
        clip = optax.identity() if each.max_grad_norm is None else optax.clip_by_global_norm(each.max_grad_norm)
        return optax.chain(clip, each.rule())

    def numbers(self, steps: int, names: Iterable[str]) -> dict[str, Any]:
        """What :meth:`build` takes of this optimizer for a run of ``steps`` steps: its learning rates, and the fields named."""
        return {"learning_rate": self.rates(steps), **{name: jnp.float32(getattr(self, name)) for name in names}}

    def form(self, names: Iterable[str]) -> Self:
        """This optimizer without :meth:`numbers`: equal for all members of one program."""
        blank = {each.name: each.default for each in fields(self)}
        return replace(self, **{name: blank[name] for name in ("learning_rate", "schedule", "warmup", *names)})

    def rule(self) -> optax.GradientTransformation:
        """The update of clipped gradients at the learning rate, one number; every number may be traced."""
        return optax.chain(self.direction(), self.decayed())

    def decayed(self) -> optax.GradientTransformation:
        """The end of a rule: decoupled decay, and the step against the direction."""
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, decays), optax.scale_by_learning_rate(self.learning_rate)
        )

    @abstractmethod
    def direction(self) -> optax.GradientTransformation:
        """The direction of ascent that clipped gradients make."""

    def rates(self, steps: int) -> jax.Array:
        """The learning rates of all steps, ``[K]``, rounded as a compiled step would round its own."""
        return jnp.asarray(jax.jit(jax.vmap(self.rate(steps)))(jnp.arange(steps)), float)

    def rate(self, steps: int) -> optax.Schedule:
        """Learning rate by step. Step 0 of a warm-up already moves: rates are ``(t + 1) / warm-up``."""
        rising = round(self.warmup * steps)
        falling = max(1, steps - rising)
        if self.schedule == "constant":
            after = optax.constant_schedule(self.learning_rate)
        elif self.schedule == "linear":
            after = optax.linear_schedule(self.learning_rate, 0.0, falling)
        else:
            after = optax.cosine_decay_schedule(self.learning_rate, falling)
        if not rising:
            return after
        return optax.join_schedules([lambda step: self.learning_rate * (step + 1) / rising, after], [rising])


@dataclass(frozen=True)
class AdamW(Optimizer):
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101).

    Attributes:
      b1, b2: decay rates of the moments.
      eps_root: added under the root of the second moment. Above zero where a gradient passes through the update: a root has no
        derivative at zero, where the moments of an adapter's first factor start.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps_root: float = 0.0

    def direction(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`."""
        return optax.scale_by_adam(b1=self.b1, b2=self.b2, eps_root=self.eps_root)


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent.

    Attributes:
      momentum: decay rate of the sum of gradients; a plain 0 keeps none.
    """

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

    The weights of a loop are the points y where gradients are taken, which lie near the average x that the paper evaluates.

    Attributes:
      b1: how near: ``y = b1 x + (1 - b1) z``.
      b2: decay rate of the second moment.
      eps_root: as :class:`AdamW` has it.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps_root: float = 0.0

    def direction(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`; the momentum is in the average."""
        return optax.scale_by_adam(b1=0.0, b2=self.b2, eps_root=self.eps_root)

    def rule(self) -> optax.GradientTransformation:
        """See :class:`Optimizer`; the rate of a step is that of z and the weight of z in x."""
        base = optax.chain(self.direction(), self.decayed())
        return optax.contrib.schedule_free(base, self.learning_rate, b1=self.b1)


def decays(params: Any) -> Any:
    """Which leaves decay, bools: all but those whose last key is one of ``UNDECAYED``."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not path or getattr(path[-1], "key", None) not in UNDECAYED, params
    )


def _matrices(weights: Any) -> Any:
    """Stacked matrices have three axes, ``[L, in, out]``; stacked vectors, the embedding and the output have two."""
    numbers = optax.contrib.MuonDimensionNumbers(1, 2)
    return jax.tree.map(lambda leaf: numbers if leaf.ndim == 3 else None, weights)
