"""Tables of a certificate made by hand, for tests."""

from collections.abc import Sequence

import pandas as pd

from immunax.conditions.points import points
from immunax.conditions.policy import Harm, Policy, Utility
from immunax.conditions.records import CELLS, RECORDS, frame

POLICY = Policy(
    {"compliance": Harm("refusal"), "substance": Harm("exactness", at_least=0.5)}, Utility("retain_nll"), weak_ratio=4.0
)


def state(cell: str, model: str, family: str, step: int = 0, seed: int = 0, flops: float = 0.0, samples: int = 10):
    """A row of ``cells``."""
    return cell, model, family, "{}", seed, step, samples, flops, False


def judged(cell: str, step: int, judge: str, values: Sequence[float], split: str = "test"):
    """Records of one judge, one answer each."""
    return [(cell, step, split, f"judge/{judge}", f"p{i}", float(value), 1.0) for i, value in enumerate(values)]


def measured(cell: str, step: int, measure: str, values: Sequence[float], weight: float = 1.0):
    """Records of one measure."""
    return [(cell, step, "test", measure, f"e{i}", float(value), weight) for i, value in enumerate(values)]


def share(count: int, of: int) -> list[float]:
    """``count`` ones, then zeros."""
    return [1.0] * count + [0.0] * (of - count)


def tables(states: Sequence[tuple], *records: Sequence[tuple]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``records`` and ``cells``."""
    return frame([row for part in records for row in part], RECORDS), frame(states, CELLS)


EXPOSURE = {"sft": "held-out", "lora": "seen"}


def attacked(*cells):
    """Points of one attacked state a cell: (name, model, family, harmful of 40, flops); all keep their utility."""
    states = [state(f"{model}-none", model, "none") for model in ("subject", "reference")]
    records = [measured(f"{model}-none", 0, "retain_nll", [1.0] * 4) for model in ("subject", "reference")]
    for name, model, family, harmful, flops in cells:
        states.append(state(name, model, family, 5, flops=flops))
        records += [judged(name, 5, "refusal", share(harmful, 40)), measured(name, 5, "retain_nll", [1.0] * 4)]
    return points(*tables(states, *records), POLICY, "test")


def verdict(verdicts, scope="all", side="compliance"):
    """The one of a scope and a side."""
    [found] = [each for each in verdicts if (each.scope, each.side) == (scope, side)]
    return found
