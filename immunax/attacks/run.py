"""Runs any attack on one set of weights, with probes along it."""

from typing import cast

import jax

from immunax.attacks.attack import Attack, AttackData, Edit, FineTuning, Report, Tampered
from immunax.attacks.edit import run_edit
from immunax.attacks.finetune import fine_tune
from immunax.models.model import Model, Params


def run_attack(
    attack: Attack, model: Model, params: Params, data: AttackData, key: jax.Array, report: Report | None = None
) -> Tampered:
    """The attack itself: pure (but for ``report``, told each step's loss), jittable, mappable over continuous fields and ``key``.

    Args:
      attack: static.
      model: static.
      params: plain weights; untouched.
      data: from :func:`~immunax.attacks.prepare.prepare`.
      key: of all that is random.
      report: called on the host with each step's loss; not under ``vmap``.
    """
    if isinstance(attack, Edit):
        return run_edit(attack, model, params, data, key, report)
    return fine_tune(cast(FineTuning, attack).tuning, model, params, data, key, report)
