"""The four immunization conditions (Rosati et al. 2024, arXiv:2402.16382) of one model, from its records alone."""

from collections.abc import Mapping

from immunax.conditions.edges import unsettled
from immunax.conditions.exposure import Exposure
from immunax.conditions.points import points
from immunax.conditions.policy import Policy
from immunax.conditions.records import Table
from immunax.conditions.resistance import strong
from immunax.conditions.stability import stability
from immunax.conditions.trainability import trainability
from immunax.conditions.unmeasured import unmeasured
from immunax.conditions.verdict import Verdict
from immunax.conditions.weak_resistance import weak


def assess(records: Table, cells: Table, policy: Policy, exposure: Mapping[str, Exposure]) -> tuple[Verdict, ...]:
    """Every verdict; the same tables give the same numbers.

    Resistance and the first claim of generalization are about held-out prompts of the domains that defenders and attackers
    train on; the second claim is about other domains.

    Args:
      records, cells: see :mod:`immunax.conditions.records`.
      policy: thresholds.
      exposure: by family of the suite, how it stands to the model.
    """
    here, there = (points(records, cells, policy, split) for split in ("test", "transfer"))
    why, edges = unmeasured(records, cells, policy, exposure), unsettled(here)
    return (
        *strong(here, policy, exposure, why, edges),
        *weak(here, policy, exposure, why),
        *stability(records, cells, policy),
        *strong(here, policy, exposure, why, edges, "generalization", "in-domain"),
        *strong(there, policy, exposure, why, edges, "generalization", "cross-domain"),
        *trainability(records, cells, policy),
    )
