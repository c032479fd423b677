"""Self-destructing models: meta-learned adversarial censoring.

Henderson et al. 2022, *Self-Destructing Models* (arXiv:2211.14946):

    L = CE(x_s) + CE(x_r) − λ · CE_h(φ_K)

φ_K are the weights after K steps of a simulated attacker, and CE_h is taken there on held-out harmful data. The gradient
passes through all K steps. The desired tasks are, here, safe answers and harmless ones. The ascent has no bound; weight
and steps are small for that reason.

The default, ``checks=attacked``, is the paper's objective at the end of the attack (or a mean over the ``simulation.checks`` on
its way). The authors' code (Breakend/SelfDestructingModels) has ``checks=trajectory``: λ = 1 and the mean over k = 0, ..., K of
CE_h(φ_k), on one held-out batch (``simulation.same_check=true``). Its attacker learns his rate beside the weights, see
:mod:`~immunax.outer.learned_rate`, and a new head of a classifier, which a language model has none of.
"""

from dataclasses import dataclass, field

import jax

from immunax.inner.estimators import MixedMode
from immunax.inner.losses import answer_loss
from immunax.inner.step import length
from immunax.models.model import Model, Params
from immunax.outer.attacker import Attacker, SimulatedAttacker, mean_along
from immunax.outer.defense import Defense, Mixture, Objective, StreamBatch
from immunax.outer.simulation import SimulatedAttack, Simulation
from immunax.runtime.errors import UserError, check_choice

CHECKS = ("attacked", "trajectory")


@dataclass(frozen=True)
class Mlac(Defense):
    """The objective above.

    Attributes:
      attacker: who is simulated.
      weight: λ.
      checks: where CE_h is taken: ``attacked``, at the checks of the simulation, or ``trajectory``, after every inner step and
        before the first, which needs a check a step.
      mixture: safe and harmless examples a step, and the simulated attack's.
    """

    needs = ("safe", "retain", "simulation")
    ascends_attack = True

    attacker: SimulatedAttacker = field(default_factory=lambda: Attacker(estimator=MixedMode()))
    weight: float = 0.1
    checks: str = "attacked"
    mixture: Mixture = Mixture(safe=4, retain=4, simulation=Simulation(16, 4))

    def __post_init__(self):
        super().__post_init__()
        check_choice("defense.checks", self.checks, CHECKS)
        simulation = self.mixture.simulation
        if self.checks == "trajectory" and simulation is not None and simulation.checks != simulation.steps:
            raise UserError(
                f"defense.checks=trajectory looks after every inner step: set mixture.simulation.checks={simulation.steps}, "
                f"found {simulation.checks}."
            )

    def loss(self, model: Model, params: Params, state: tuple, batch: StreamBatch, key: jax.Array) -> Objective:
        """The objective, and its terms before weighting; ``attacked`` is a mean over the checks."""
        attacked, seen = mean_along(self.attacker, model, params, batch.simulation, answer_loss, key)
        if self.checks == "trajectory":
            attacked = with_start(model, params, batch.simulation, attacked)
        safe, retain = answer_loss(model, params, batch.safe), answer_loss(model, params, batch.retain)
        total = safe + retain - self.weight * attacked
        return total, {"safe": safe, "retain": retain, "attacked": attacked, **seen}


def with_start(model: Model, params: Params, data: SimulatedAttack, attacked: jax.Array) -> jax.Array:
    """The mean over k = 0, ..., K of CE_h, from that over k = 1, ..., K; the first is taken on the first check's batch."""
    steps = length(data.checks)
    start = answer_loss(model, params, jax.tree.map(lambda leaf: leaf[0], data.checks))
    return (start + steps * attacked) / (steps + 1)
