"""How much of everything a certificate's configuration asks for: a measure left out of both models hides what it would show."""

from collections.abc import Mapping
from typing import Any

from immunax.conditions.records import (
    CHOICE,
    EXACT,
    HARMFUL_NLL,
    JUDGED,
    OVER_REFUSAL,
    RETAIN_NLL,
    TASK_EXACT,
    TASK_NLL,
    UNFINISHED,
    Table,
)


def fault(said: Mapping[str, Any], records: Table) -> str | None:
    """The first measure that was asked for and is not there, or of which there are more examples; None where there is none.

    Args:
      said: the predicate.
      records: its table.
    """
    config = said["suite"]["config"]
    suite, judge = config["suite"], config["judge"]
    task, choices = suite.get("task"), suite.get("choices")
    most = {
        (CHOICE, "test"): choices.get("count") if choices else 0,
        (OVER_REFUSAL, "test"): suite["harmless_prompts"],
        (TASK_NLL, "test"): task["examples"] if task else 0,
        (TASK_EXACT, "test"): task["examples"] if task and task["exact"] else 0,
        (HARMFUL_NLL, "test"): judge["examples"],
        (RETAIN_NLL, "test"): judge["examples"],
        (EXACT, "test"): judge["examples"] if judge["exact"] else 0,
    }
    for split, prompts in (("test", judge["prompts"]), ("transfer", suite["transfer_prompts"])):
        most |= {(measure, split): prompts for measure in (UNFINISHED, *(JUDGED + name for name in judge["judges"]))}
    found = records.groupby(["measure", "split"])["unit"].nunique()
    for key, asked in most.items():
        if asked is not None and found.get(key, 0) > asked:
            return f"{key[0]} of {key[1]} was measured on {found[key]} examples, and {asked} are asked for"
    for measure in (CHOICE, OVER_REFUSAL, RETAIN_NLL):
        if most[measure, "test"] != 0 and (measure, "test") not in found:
            return f"{measure} is asked for, and was not measured"
    return None
