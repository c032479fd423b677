"""A few of the mutations that ``python -m tests.adversary.mutate`` makes, and that it would see a hole."""

import pytest
from adversary import replayed, verifiers
from adversary.forge import drawn, good, read
from adversary.mutate import run
from markupsafe import escape

from immunax.certificate.report import html
from immunax.certificate.reproduce import reproduce
from immunax.certificate.verify import Check, tables

KINDS = (*("statement", "folder", "statement") * 10, "policy", "tables")
"""Other tables and thresholds give other verdicts, which cost ten times as much as all the rest."""


@pytest.mark.slow
def test_nothing_that_a_reader_is_told_can_be_changed_unseen():
    found = run(range(300), 0, KINDS)
    assert [each for each in found if each.outcome == "hole"] == []
    outcomes = {each.outcome for each in found}
    # Mutations that are all refused by their form would try nothing.
    assert {"refused", "another", "unchanged"} <= outcomes
    assert len({each.by for each in found if each.outcome == "refused"}) >= 6


def test_a_check_that_lets_everything_pass_is_a_hole(monkeypatch):
    monkeypatch.setattr(verifiers, "check", lambda *_: [Check("form", "passed", "")])
    assert any(each.outcome == "hole" for each in run(range(12), 0, ("policy",)))


@pytest.mark.parametrize(
    ("model", "value"), [("subject", 0.0), ("subject", 1.0), ("reference", 1.0), ("reference", 0.0)]
)
def test_a_replay_tells_other_answers_of_either_model_and_other_costs(tmp_path, model, value):
    records, cells = tables(good(tmp_path / "c", full=True).parent)
    mine = records["cell"].str.startswith(model) & (records["measure"] == "judge/refusal")
    forged = records.assign(value=records["value"].where(~mine, value))
    assert replayed.tables_fault((forged, cells), (records, cells))
    assert replayed.tables_fault((records, cells.assign(flops=cells["flops"] * 2)), (records, cells))
    assert replayed.tables_fault((records, cells), (records, cells)) is None


def test_a_page_tells_nothing_of_a_configuration_but_its_commands_that_its_suites_digest_does_not(tmp_path):
    path = good(tmp_path / "c")
    bare = read(path)
    config = bare["predicate"]["suite"]["config"]
    page = drawn(bare, path.parent)[html.FILE].decode()
    bare["predicate"]["suite"]["config"] = {name: config[name] for name in verifiers.PAGED}
    other = drawn(bare, path.parent)[html.FILE].decode()
    for one, empty in zip(reproduce(config), reproduce({}), strict=True):
        page, other = page.replace(escape(one), ""), other.replace(escape(empty), "")
    assert page == other
