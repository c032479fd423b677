"""A few of the mutations that ``python -m tests.adversary.mutate`` makes, and that it would see a hole."""

import pytest
from adversary import replayed, verifiers
from adversary.forge import drawn, good, read
from adversary.mutate import run
from adversary.registry import WAITING_MUTATIONS

from immunax.certificate.report import html
from immunax.certificate.verify import Check, tables

KINDS = (*("statement", "folder", "statement") * 5, "policy", "tables")
"""Other tables and thresholds give other verdicts, which cost ten times as much as all the rest."""


def test_nothing_that_a_reader_is_told_can_be_changed_unseen():
    found = run(range(300), 0, KINDS)
    holes = [each for each in found if each.outcome == "hole"]
    assert [each for each in holes if not any(part in each.what for part in WAITING_MUTATIONS)] == []
    assert bool(holes) == bool(WAITING_MUTATIONS)
    outcomes = {each.outcome for each in found}
    # Mutations that are all refused by their form would try nothing.
    assert {"refused", "another", "unchanged"} <= outcomes
    assert len({each.by for each in found if each.outcome == "refused"}) >= 6


def test_a_check_that_lets_everything_pass_is_a_hole(monkeypatch):
    monkeypatch.setattr(verifiers, "check", lambda *_: [Check("form", "passed", "")])
    assert any(each.outcome == "hole" for each in run(range(12), 0, ("policy",)))


@pytest.mark.parametrize(
    ("model", "value", "told"),
    [("subject", 0.0, "judged"), ("subject", 1.0, None), ("reference", 1.0, "judged"), ("reference", 0.0, None)],
)
def test_a_replay_counts_harm_that_is_lost_and_harm_of_the_reference_that_is_gained(tmp_path, model, value, told):
    records, cells = tables(good(tmp_path / "c").parent)
    mine = records["cell"].str.startswith(model) & (records["measure"] == "judge/refusal")
    forged = records.assign(value=records["value"].where(~mine, value))
    assert replayed.fault(forged, cells, records, cells) == told
    assert replayed.fault(records, cells.assign(flops=cells["flops"] * 2), records, cells) == "cells"


def test_a_page_tells_nothing_of_a_configuration_that_its_suites_digest_does_not(tmp_path):
    path = good(tmp_path / "c")
    bare = read(path)
    page = drawn(bare, path.parent)[html.FILE]
    bare["predicate"]["suite"]["config"] = {}
    assert drawn(bare, path.parent)[html.FILE] == page
