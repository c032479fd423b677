"""Non-fine-tunable learning.

Deng et al. 2024, *SOPHON* (arXiv:2404.12699), alternates two loops:

- fine-tuning suppression, ``α · mean over j of −log(1 − p(x_h))`` at the weights φ_j of a simulated attacker (the inverse cross
  entropy; at most as large as the predictions are sure, so that it does not run away as −CE does);
- normal training reinforcement, ``β · CE`` on the tasks that are to stay: here harmless answers, and safe ones.

The two are summed in every outer step, which is their alternation in expectation with one optimizer for both. With
``trainer.turns`` each has an optimizer of its own, as in the authors' code (Adam at 3e-4, clipped at 0.5, and at 5e-4): an outer
step is one update of suppression, and then one of reinforcement. The gradient at φ is first order, as in the paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp

from immunax.inner.losses import answer_loss, avoidance_loss
from immunax.models.model import Model, Params
from immunax.outer.attacker import Attacker, SimulatedAttacker, mean_along
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.outer.simulation import Simulation


@dataclass(frozen=True)
class Sophon(Defense):
    """The objective above.

    Attributes:
      attacker: who is simulated.
      suppression: α.
      reinforcement: β.
      mixture: harmless examples a step, safe ones if there are to be any, and the simulated attack's.
    """

    needs = ("retain", "simulation")

    attacker: SimulatedAttacker = field(default_factory=Attacker)
    suppression: float = 1.0
    reinforcement: float = 1.0
    mixture: Mixture = Mixture(safe=4, retain=4, simulation=Simulation(16, 4, 4))

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting; one whose weight is 0 is left out."""
        total, terms = jnp.float32(0), {}
        if self.suppression:
            suppressed, seen = mean_along(self.attacker, model, params, batch.simulation, avoidance_loss, key)
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
