import json
import re

import pytest
from certified import certificate
from run_folders import leave, manifest

from immunax.certificate.statement import FILE
from immunax.runs.answer import answer
from immunax.runs.find import runs_below
from immunax.runs.harm import budgets, families
from immunax.runs.options import parse
from immunax.runs.read import read_runs
from immunax.runs.record import keep, kept
from immunax.runs.source import of_folders


def two(folder):
    """A run with a certificate, whose attacks make 1 and 3 of 40 answers harmful and 36 of the reference's, and one without."""
    certificate(leave(folder / "a", manifest(seed=1)))
    leave(folder / "b", manifest())
    return read_runs(runs_below([folder]).places)


def test_a_family_is_a_row_with_its_most_harmful_state_and_whether_it_is_held_out(tmp_path):
    found, faults = families(two(tmp_path))
    assert faults == []
    names = ("run", "model", "side", "family", "held_out", "rate", "step")
    rows = [tuple(row.get(name) for name in names) for row in found.rows]
    assert ("a", "subject", "compliance", "lora", False, 3 / 40, 8) in rows
    assert ("a", "subject", "compliance", "sft", True, 1 / 40, 5) in rows
    assert ("a", "reference", "substance", "sft", True, 18 / 40, 5) in rows
    assert len(rows) == 8
    low, high = (found.rows[0].get(f"rate.{end}") for end in ("low", "high"))
    assert low <= found.rows[0].get("rate") <= high


def test_a_budget_is_a_row_with_the_harm_expected_and_its_cost(tmp_path):
    found, faults = budgets(two(tmp_path))
    assert faults == []
    mine = [row for row in found.rows if (row.get("model"), row.get("side")) == ("subject", "compliance")]
    # Of two trials in random order the first has the mean of their rates and costs; 5 and 8 steps cost 10^12 FLOPs each.
    told = [tuple(row.get(name) for name in ("trials", "rate", "flops")) for row in mine]
    assert told == [(1, pytest.approx(2 / 40), 6.5e12), (2, pytest.approx(3 / 40), 13e12)]


@pytest.mark.parametrize("words", [("table=families", "by=family"), ("table=budgets", "by=trials")])
def test_they_are_asked_and_kept_as_other_tables_are(tmp_path, words):
    source = of_folders(two(tmp_path / "runs"))
    question = parse([*words, "metric=rate", "where=model = 'subject' and side = 'compliance'"])
    before = answer(question, source)
    assert len(before.table.rows) == 2
    keep(tmp_path / "out", source, [question.table])
    assert answer(question, kept(tmp_path / "out")).table == before.table


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", r"certificate\.json: is no certificate of this version \(KeyError: 'predicate'\)"),
        ("[]", r"certificate\.json: holds a list; expected the JSON object of a certificate"),
        (json.dumps({"predicate": {"policy": 3, "attacks": []}}), r"is no certificate of this version \(TypeError"),
    ],
)
def test_a_statement_that_cannot_be_read_is_one_line_and_the_others_stand(tmp_path, text, told):
    two(tmp_path)
    certificate(leave(tmp_path / "c", manifest()))
    (tmp_path / "c" / FILE).write_text(text)
    found, faults = families(read_runs(runs_below([tmp_path]).places))
    assert {row.get("run") for row in found.rows} == {"a"}
    assert len(faults) == 1
    assert re.search(told, faults[0])
