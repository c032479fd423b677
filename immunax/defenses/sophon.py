"""Non-fine-tunable learning.

Deng et al. 2024, *SOPHON* (arXiv:2404.12699), alternates two loops:

- fine-tuning suppression, ``α · mean over j of S(x_h)`` at the weights φ_j of a simulated attacker;
- normal training reinforcement, ``β · CE`` on the tasks that are to stay: here harmless answers, and safe ones.

The two are summed in every outer step, which is their alternation in expectation with one optimizer for both. With
``trainer.turns`` each has an optimizer of its own, as in the authors' code (Adam at 3e-4, clipped at 0.5, and at 5e-4): an outer
step is one update of suppression, and then one of reinforcement. The gradient at φ is first order, as in the paper.

S is ``objective``. ``unlikelihood``, the default, is the paper's inverse cross entropy −log(1 − p), at most as large as the
predictions are sure, so that it does not run away as −CE does. The authors' released code (ChiangE/Sophon, there for vision) has
two others: ``inverse``, the cross entropy of 1 − z for logits z, after every inner step; and ``kl_uniform``, KL(uniform ‖ p),
after the last one alone (``simulation.checks=1``). It takes 50 inner steps of SGD at 1e-4.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from immunax.data.batches import Batch
from immunax.inner.losses import answer_loss, avoidance_loss, inverse_loss, uniform_loss
from immunax.models.model import Model, Params
from immunax.outer.attacker import Attacker, SimulatedAttacker, mean_along
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.outer.simulation import Simulation
from immunax.runtime.errors import check_choice

OBJECTIVES: Mapping[str, Callable[[Model, Params, Batch], jax.Array]] = {
    "unlikelihood": avoidance_loss,
    "inverse": inverse_loss,
    "kl_uniform": uniform_loss,
}
"""S, by the names that options give it."""


@dataclass(frozen=True)
class Sophon(Defense):
    """The objective above.

    Attributes:
      attacker: who is simulated.
      suppression: α.
      reinforcement: β.
      objective: S: ``unlikelihood``, ``inverse`` or ``kl_uniform``.
      mixture: harmless examples a step, safe ones if there are to be any, and the simulated attack's.
    """

    needs = ("retain", "simulation")

    attacker: SimulatedAttacker = field(default_factory=Attacker)
    suppression: float = 1.0
    reinforcement: float = 1.0
    objective: str = "unlikelihood"
    mixture: Mixture = Mixture(safe=4, retain=4, simulation=Simulation(16, 4, 4))

    def __post_init__(self):
        super().__post_init__()
        check_choice("defense.objective", self.objective, OBJECTIVES)

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting; one whose weight is 0 is left out."""
        total, terms = jnp.float32(0), {}
        if self.suppression:
            suppressed, seen = mean_along(
                self.attacker, model, params, batch.simulation, OBJECTIVES[self.objective], key
            )
            total, terms = total + self.suppression * suppressed, {"suppressed": suppressed, **seen}
        if self.reinforcement:
            kept = {"retain": answer_loss(model, params, batch.retain)}
            if batch.safe is not None:
                kept["safe"] = answer_loss(model, params, batch.safe)
            total, terms = total + self.reinforcement * sum(kept.values()), terms | kept
        return total, terms

    def parts(self) -> Mapping[str, Defense]:
        """Its two loops, in the order of the authors' code."""
        return {
            "suppression": replace(self, reinforcement=0.0),
            "reinforcement": replace(self, suppression=0.0),
        }
