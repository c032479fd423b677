"""The inner loop as a function with a gradient, from weights to attacked weights."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import optax

from immunax.inner.step import Loss, length
from immunax.models.model import Params


class Estimator(ABC):
    """How a gradient passes through an inner loop; its subclasses are frozen dataclasses."""

    @abstractmethod
    def follow(
        self, inner: "Adaptation", params: Params, batches: Any, outer: Loss | None, checks: Any
    ) -> tuple[Params, jax.Array]:
        """See :meth:`Adaptation.along`; without ``outer`` and ``checks`` the sum is 0."""

    def states_alive(self, steps: int, checks: int) -> int:
        """How many states of a loop of K ``steps`` are alive at once: one, where the gradient does not go back through them.

        Args:
          steps: K.
          checks: S, outer losses along the way.
        """
        return 1


@dataclass(frozen=True)
class Adaptation:
    """An inner loop as a differentiable function from weights θ to attacked weights φ_K.

    Plain weights are trained whole. Of :class:`~immunax.models.lora.Adapted` ones the adapters are trained, and the
    gradient reaches the base too, both where it shaped the inner steps and where it is part of φ_K.

    Attributes:
      loss: the attacker's, of the whole weights on a batch.
      optimizer: the attacker's.
      steps: K.
      estimator: how the gradient passes.
    """

    loss: Loss
    optimizer: optax.GradientTransformation
    steps: int
    estimator: Estimator

    def __call__(self, params: Params, batches: Any) -> Params:
        """φ_K.

        Args:
          params: θ, plain or adapted.
          batches: a pytree with leading axis K.

        Raises:
          ValueError: the batches are not K.
        """
        self._check(batches, None)
        return self.estimator.follow(self, params, batches, None, None)[0]

    def along(self, params: Params, batches: Any, outer: Loss, checks: Any) -> tuple[Params, jax.Array]:
        """φ_K, and an outer loss summed along the trajectory: ``Σ_s outer(φ_{sK/S}, checks[s−1])``, s = 1 ... S.

        Args:
          params: θ, plain or adapted.
          batches: a pytree with leading axis K.
          outer: ``outer(weights, check) -> scalar``, the defender's.
          checks: a pytree with leading axis S, a divisor of K: held-out batches, and weights if they differ.

        Raises:
          ValueError: the batches are not K, S does not divide K, or the estimator knows the end alone and S > 1.
        """
        self._check(batches, checks)
        return self.estimator.follow(self, params, batches, outer, checks)

    def _check(self, batches: Any, checks: Any) -> None:
        found = length(batches)
        if found != self.steps:
            raise ValueError(f"{found} batches for an inner loop of {self.steps} steps")
        if checks is not None and self.steps % length(checks):
            raise ValueError(f"{length(checks)} checks do not divide {self.steps} inner steps")


def adapt(loss: Loss, optimizer: optax.GradientTransformation, steps: int, estimator: Estimator) -> Adaptation:
    """One differentiable function from weights to attacked weights; see :class:`Adaptation`."""
    return Adaptation(loss, optimizer, steps, estimator)
