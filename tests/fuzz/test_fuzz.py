"""A few of the inputs that ``python -m tests.fuzz`` makes, and that the command would see a fault."""

import pytest
from fuzz import campaign
from fuzz.parsers import PARSERS


@pytest.mark.slow
def test_no_input_ends_in_a_traceback_a_hang_or_foreign_code():
    tallies = campaign.run([each.name for each in PARSERS], 0, 600, 2)
    assert [fault for tally in tallies.values() for fault in tally.faults] == []
    # Mutations that are all refused at the first byte would try nothing.
    assert sum(tally.counts["accepted"] for tally in tallies.values()) > 60


@pytest.mark.parametrize("outcome", ["traceback", "timeout", "died"])
def test_what_is_no_answer_is_a_fault_with_the_numbers_that_repeat_it(outcome):
    tally = campaign.Tally()
    line = {"place": 0, "input": 7, "outcome": outcome, "detail": "x", "seconds": 1.0, "grown": 0, "foreign": []}
    tally.add(line, "3/config")
    assert tally.faults == [f"3/config/7 {outcome}: x"]


def test_an_answer_that_ran_something_or_took_too_much_is_a_fault():
    tally = campaign.Tally()
    line = {
        "place": 0,
        "input": 7,
        "outcome": "refused",
        "detail": "",
        "seconds": 1.0,
        "grown": 0,
        "foreign": ["import x"],
    }
    tally.add(line, "3/config")
    tally.add({**line, "foreign": [], "grown": 2 << 30}, "3/config")
    assert [fault.split()[1] for fault in tally.faults] == ["foreign:", "memory:"]
