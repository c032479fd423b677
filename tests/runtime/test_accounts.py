import json

import pytest

from immunax.runtime.accounts import CATEGORIES, Ledger, Start, as_json, from_json, tokens_told, told
from immunax.runtime.errors import UserError


class Clock:
    """Goes on when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def spent(start):
    return {name: seconds for name, seconds in start.spent.items() if seconds}


def test_every_second_is_of_the_innermost_category_and_none_is_lost(clock):
    ledger = Ledger(Start(0.0), clock, before=3)
    clock.wait(1)
    outer = ledger.enter("attack")
    clock.wait(2)
    inner = ledger.enter("evaluate")
    clock.wait(4)
    ledger.enter(inner)
    clock.wait(8)
    ledger.enter(outer)
    clock.wait(16)
    ledger.settle()
    assert spent(ledger.start) == {"startup": 3, "other": 17, "attack": 10, "evaluate": 4}
    assert ledger.start.wall == 34


def test_compiling_within_a_step_is_compiling_and_nested_events_count_once(clock):
    ledger = Ledger(Start(0.0), clock)
    before = ledger.enter("step")
    clock.wait(10)
    clock.wait(2)
    ledger.compiled(2)  # a trace within a trace
    clock.wait(1)
    ledger.compiled(1)  # another one
    clock.wait(3)
    ledger.compiled(7)  # the trace around both, which began a second before the first
    clock.wait(5)
    ledger.compiled(5)  # the compilation behind it
    ledger.enter(before)
    assert spent(ledger.start) == {"step": 9, "compile": 12}
    assert ledger.start.wall == 21


def test_what_was_not_kept_is_taken_out_of_what_was_useful(clock):
    ledger = Ledger(Start(0.0), clock)
    ledger.enter("step")
    for step in (5, 10, 15):
        clock.wait(step)
        ledger.settle()
        ledger.start.keep(step)
    ledger.enter("evaluate")
    clock.wait(7)
    ledger.settle()
    ledger.start.tokens["attack"] = 3, 4
    start = from_json(json.loads(json.dumps(as_json(ledger.start))))
    assert tokens_told([start, ledger.start, Start(0.0)]) == {"attack": (6, 8)}
    start.lose(10)
    assert spent(start) == {"step": 15, "redone": 22}
    start.lose(10)  # said again by a later start
    assert spent(start) == {"step": 15, "redone": 22}
    start.lose(0)
    assert spent(start) == {"redone": 37}


def test_what_is_kept_beside_checkpoints_is_not_lost_with_one(clock):
    ledger = Ledger(Start(0.0), clock)
    for category, step in (("step", 5), ("attack", None), ("attack", "never")):
        ledger.enter(category)
        clock.wait(4)
        ledger.settle()
        if step != "never":
            ledger.start.keep(step)
    ledger.start.lose(0)
    assert spent(ledger.start) == {"attack": 4, "redone": 8}


def test_many_checkpoints_take_no_more_room_and_the_newest_are_told_apart(clock):
    ledger = Ledger(Start(0.0), clock)
    ledger.enter("step")
    for step in range(1, 101):
        clock.wait(1)
        ledger.settle()
        ledger.start.keep(step)
    assert len(ledger.start.segments) < 20
    ledger.start.lose(97)
    assert spent(ledger.start) == {"step": 97, "redone": 3}


def test_a_run_of_two_starts_is_one_run_and_the_time_between_them_is_apart():
    first, second = Start(1000.0), Start(1100.0, saved=30.0, again=4)
    first.spent |= {"step": 40.0, "redone": 10.0, "compile": 30.0}
    second.spent |= {"step": 50.0, "evaluate": 10.0, "load": 20.0}
    found = told([first, second])
    assert found["share"] == 0.625
    assert found["wall"] == 160
    assert found["seconds"].keys() == set(CATEGORIES)
    assert sum(found["seconds"].values()) == found["wall"]
    assert (found["down"], found["starts"], found["redone_steps"], found["compile_saved"]) == (20, 2, 4, 30)
    assert told([Start(1000.0), Start(900.0)])["down"] == 0
    assert told([Start(0.0)])["share"] is None


@pytest.mark.parametrize("said", [None, {}, {"began": 1, "spent": {}}, {**as_json(Start(0.0)), "segments": [[1]]}])
def test_what_is_no_account_is_refused(said):
    with pytest.raises(UserError, match="no account"):
        from_json(said)
