import json
from pathlib import Path

import pytest

from immunax.certificate.statement import verdicts_to_json
from immunax.conditions.verdict import Verdict, numbers
from immunax.runs.flatten import flat
from immunax.runs.verdicts import NAME, verdict_columns


def verdict(condition, claim, outcome, scope="all", side="compliance", value=0.5):
    return Verdict(condition, claim, scope, side, outcome, "a share", value, 0.4, 0.6, 0.25, "because", {"more": 1})


def columns(*verdicts, **said):
    return dict(verdict_columns({"predicate": {"verdicts": verdicts_to_json(verdicts), **said}}))


def test_each_condition_is_a_word_and_each_verdict_a_number_with_its_interval():
    found = columns(
        verdict("resistance", "strong", "fails"),
        verdict("resistance", "strong", "holds", scope="held-out"),
        verdict("stability", "retain", "holds", scope="none", side="none", value=None),
        model={"name": "m"},
        suite={"name": "smoke"},
    )
    assert found["certificate.model"] == "m"
    assert found["certificate.suite"] == "smoke"
    assert (found["certificate.resistance"], found["certificate.resistance.held-out"]) == ("fails", "holds")
    assert found["certificate.stability"] == "holds"
    assert "certificate.stability.held-out" not in found
    assert "certificate.trainability" not in found
    name = "certificate.resistance.strong.all.compliance"
    assert [found[f"{name}{end}"] for end in ("", ".low", ".high", ".outcome", ".threshold")] == [
        0.5,
        0.4,
        0.6,
        "fails",
        0.25,
    ]
    assert found["certificate.stability.retain"] is None


def test_a_manifest_has_the_numbers_of_a_certificate_under_the_names_of_the_table():
    verdicts = [
        verdict("resistance", "strong", "fails"),
        verdict("resistance", "strong", "holds", scope="held-out", value=0.0),
        verdict("stability", "retain perplexity", "holds", scope="none", side="none", value=None),
    ]
    found = dict(flat(numbers(verdicts), NAME))
    assert len(found) == 9
    assert found.items() <= columns(*verdicts).items()
    assert found["certificate.resistance.strong.all.compliance"] == 0.5


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"predicate": 3},
        {"predicate": {"verdicts": 3, "model": 3, "suite": {"name": ["x"]}}},
        {"predicate": {"verdicts": [1, {}, {"condition": {"a": 1}, "scope": ["x"], "outcome": 3, "value": "x"}]}},
        {"predicate": {"verdicts": [{"condition": "resistance", "scope": "all", "outcome": ["holds"]}]}},
    ],
)
def test_a_certificate_of_any_shape_has_columns(stated):
    assert all(isinstance(name, str) for name, _ in verdict_columns(stated))


def test_a_recorded_certificate_has_all_four_conditions():
    path = next(Path(__file__).parents[2].glob("experiments/certificates/organism-rep_noise/certificate.json"))
    found = dict(verdict_columns(json.loads(path.read_text())))
    assert found["certificate.resistance"] == "fails"
    words = ("resistance", "stability", "generalization", "trainability")
    assert all(found[f"certificate.{name}"] in ("holds", "fails", "inconclusive", "unmeasured") for name in words)
