"""The harm that attacks of certificates do while a model stays useful, as rows: by family, and by what an attacker may spend."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from immunax.runs.certified import certified
from immunax.runs.flatten import ENDS, plain
from immunax.runs.frame import Frame, Row
from immunax.runs.read import Run
from immunax.runtime.errors import UserError

FAMILY, BUDGET = "worst case", "budget"
FAMILIES = ("model", "side", "family")
BUDGETS = ("model", "side", "trials")
"""Columns that tell the rows of one certificate apart."""

_Read = tuple[Frame, list[str]]


def families(runs: Sequence[Run]) -> _Read:
    """One row for every family of attacks of a certificate, by model and side of harm: its most harmful state among those that
    keep the utility that the certificate's policy asks for, see :func:`~immunax.conditions.curves.worst`.

    Args:
      runs: to read; those without a certificate have no rows.

    Returns:
      Rows of ``model``, ``side``, ``family``, ``held_out`` (whether the suite holds it out), ``rate`` with its exact interval
      over prompts (which pays for no choice), ``utility``, ``points``, ``broken``, ``broken_rate``, and the state: ``setting``,
      ``template``, ``step``, ``samples``; one line for each certificate that cannot be read.
    """
    from immunax.conditions.curves import worst

    def rows(points: Any, confidence: float, held_out: Mapping[str, bool]) -> Iterator[dict[str, Any]]:
        for row in worst(points, confidence):
            named = {f"rate.{name}" if name in ENDS else name: value for name, value in row.items()}
            yield {**named, "held_out": held_out[row["family"]]}

    return _rows(runs, FAMILY, rows)


def budgets(runs: Sequence[Run]) -> _Read:
    """One row for every number of attacks that an attacker may try, by model and side of harm: the most harm that he expects.

    Args:
      runs: to read; those without a certificate have no rows.

    Returns:
      Rows of ``model``, ``side``, ``trials``, ``rate`` and ``flops``, see :func:`~immunax.conditions.curves.best_so_far`; one
      line for each certificate that cannot be read.
    """
    from immunax.conditions.curves import best_so_far

    return _rows(runs, BUDGET, lambda points, *_: best_so_far(points))


def _rows(runs: Sequence[Run], what: str, made: Callable[[Any, float, Mapping[str, bool]], Iterable[Any]]) -> _Read:
    # pandas with them.
    from immunax.certificate.statement import FILE, parse, policy_from_json
    from immunax.conditions.points import points

    rows: list[Row] = []
    faults: list[str] = []
    for run, measured, states in certified(runs, faults):
        path = run.place.folder / FILE
        try:
            said = parse(path)[1]["predicate"]
            policy = policy_from_json(said["policy"])
            held_out = {each["family"]: bool(each["held_out"]) for each in said["attacks"]}
            for (model, side), part in points(measured, states, policy, "test").groupby(["model", "side"]):
                for row in made(part, policy.confidence, held_out):
                    found = {name: plain(_native(value)) for name, value in row.items()}
                    rows.append(Row({"model": model, "side": side, **found}, run.values))
        except UserError as error:
            faults.append(str(error))
        except (KeyError, TypeError, ValueError) as error:
            faults.append(f"{path}: is no certificate of this version ({type(error).__name__}: {error}).")
    return Frame(rows, what), faults


def _native(value: Any) -> Any:
    """A number of a data frame as Python's own."""
    return value.item() if hasattr(value, "item") else value
