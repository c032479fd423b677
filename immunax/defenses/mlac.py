"""Self-destructing models: meta-learned adversarial censoring.

Henderson et al. 2022, *Self-Destructing Models* (arXiv:2211.14946):

    L = CE(x_s) + CE(x_r) − λ · CE_h(φ_K)

φ_K are the weights after K steps of a simulated attacker, and CE_h is taken there on held-out harmful data. The gradient
passes through all K steps. The desired tasks are, here, safe answers and harmless ones. The ascent has no bound; weight
and steps are small for that reason.
"""

from dataclasses import dataclass, field

import jax

from immunax.inner.estimators import MixedMode
from immunax.inner.losses import answer_loss
from immunax.models.model import Model, Params
from immunax.outer.attacker import Attacker, SimulatedAttacker, mean_along
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.outer.simulation import Simulation


@dataclass(frozen=True)
class Mlac(Defense):
    """The objective above.

    Attributes:
      attacker: who is simulated.
      weight: λ.
      mixture: safe and harmless examples a step, and the simulated attack's.
    """

    needs = ("safe", "retain", "simulation")

    attacker: SimulatedAttacker = field(default_factory=lambda: Attacker(estimator=MixedMode()))
    weight: float = 0.1
    mixture: Mixture = Mixture(safe=4, retain=4, simulation=Simulation(16, 4))

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting; ``attacked`` is a mean over the checks."""
        attacked, seen = mean_along(self.attacker, model, params, batch.simulation, answer_loss, key)
        safe, retain = answer_loss(model, params, batch.safe), answer_loss(model, params, batch.retain)
        total = safe + retain - self.weight * attacked
        return total, {"safe": safe, "retain": retain, "attacked": attacked, **seen}
