"""Processes that watch one another, by a service of a dictionary's."""

import time
from types import SimpleNamespace

import pytest

from immunax.runtime import pace, watch
from immunax.runtime.watch import Watch


class Service:
    """What JAX's service does, of one process."""

    def __init__(self):
        self.held, self.silent = {}, False

    def key_value_set(self, key, value, allow_overwrite=False):
        if self.silent:
            raise RuntimeError("unavailable")
        self.held[key] = value

    def key_value_dir_get(self, key):
        if self.silent:
            raise RuntimeError("unavailable")
        return [each for each in self.held.items() if each[0].startswith(key)]

    def blocking_key_value_get(self, key, milliseconds):
        return self.held[key]


class EndedError(BaseException):
    """In the place of the end of a process."""


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass where a test says so."""
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: made.now, sleep=lambda seconds: None))
    return made


@pytest.fixture
def raised_end(monkeypatch):
    """Has the end of the process be an error."""

    def end(status):
        raise EndedError(status)

    monkeypatch.setattr(watch.signals, "end", end)


@pytest.fixture
def watched(service, clock, raised_end, monkeypatch):
    """A watch of process 1 of three that is asked by hand."""
    monkeypatch.setattr(pace, "_work", 0)
    return Watch(service, 1, ["a", "b", "c"], 5)


def beat(service, watched, *texts):
    """One round: what processes 0 and 2 say, heard and judged."""
    for index, text in zip((0, 2), texts, strict=True):
        if text is not None:
            service.held[f"immunax/alive/{index}"] = text
    watched.round()


def beats(service, watched, clock, *works):
    """Rounds for four times as long as one may be silent; a process whose work is None is."""
    for number in range(20):
        beat(service, watched, *(None if work is None else f"{number} {work} 0" for work in works))
        clock.now += 1


def test_who_goes_on_telling_is_there(service, watched, clock):
    beats(service, watched, clock, 0, 0)


def test_all_end_where_none_goes_on_for_long(service, clock, raised_end, monkeypatch, capsys):
    monkeypatch.setattr(pace, "_work", 0)
    monkeypatch.setattr(pace, "_moves", 0)
    first = Watch(service, 0, ["a", "b"], 5, stall=30)

    def rounds(count, work):
        for _ in range(count):
            service.held["immunax/alive/1"] = f"{clock.now} {work} 0"
            first.round()
            clock.now += 1

    rounds(30, 0)
    pace.move()  # one is enough, which may be at work alone
    rounds(30, 0)
    rounds(30, 1)
    assert capsys.readouterr().err == ""
    with pytest.raises(EndedError, match="142"):
        rounds(3, 1)
    assert "none of the 2 processes has gone on for 30 s" in capsys.readouterr().err


def test_a_silent_process_is_named_with_its_host_by_the_first_that_is_left(service, watched, clock, capsys):
    with pytest.raises(EndedError, match="142"):
        beats(service, watched, clock, None, 0)
    assert "process 0 on a has not answered" in capsys.readouterr().err


def test_of_two_that_are_silent_both_are_named_by_the_first_that_is_left(service, clock, raised_end, capsys):
    last = Watch(service, 2, ["a", "b", "c"], 5)
    clock.now = 6.0
    with pytest.raises(EndedError, match="142"):
        last.round()
    told = capsys.readouterr().err
    assert told.startswith(
        "error: process 0 on a has not answered for 5 s; process 1 on b has not answered for 5 s: the job ends"
    )


def test_another_one_that_is_left_says_nothing(service, watched, clock, capsys):
    with pytest.raises(EndedError, match="142"):
        beats(service, watched, clock, 0, None)
    assert capsys.readouterr().err == ""  # process 0 does


def test_a_service_that_is_gone_is_process_0(service, watched, clock, capsys):
    service.silent = True
    with pytest.raises(EndedError, match="142"):
        beats(service, watched, clock, 0, 0)
    assert "process 0 on a is gone or does not answer" in capsys.readouterr().err


def test_who_lives_and_does_not_go_on_is_told(service, watched, clock, monkeypatch):
    monkeypatch.setattr(pace, "_work", 7)
    with pytest.raises(EndedError, match="142"):
        beats(service, watched, clock, 7, 6)


def test_a_step_that_takes_long_is_no_hang(service, watched, clock, monkeypatch):
    beats(service, watched, clock, 6, 6)
    monkeypatch.setattr(pace, "_work", 7)
    beat(service, watched, "11 6 0", "11 6 0")
    beat(service, watched, "12 7 0", "12 7 0")


def test_who_is_behind_the_others_and_at_work_on_something_long_is_no_hang(service, watched, clock, monkeypatch):
    monkeypatch.setattr(pace, "_work", 7)
    for number in range(20):
        beat(service, watched, f"{number} 6 {number}", f"{number} 7 0")
        clock.now += 1


def test_what_one_process_does_alone_counts_as_no_work_of_all():
    before = pace.now()
    with pace.alone():
        pace.worked()
    pace.worked()
    assert pace.now() == (before.work + 1, before.moves + 1)


def test_who_leaves_takes_the_others_along(service, watched):
    with pytest.raises(EndedError, match="143"):
        beat(service, watched, "0 0 0", "left 143")


def test_the_first_closes_what_is_open_where_all_have_agreed_to_end(service, clock, raised_end, monkeypatch):
    monkeypatch.setattr(pace, "_work", 0)
    first = Watch(service, 0, ["a", "b", "c"], 5)
    first.agreed = 143
    for _ in range(4):
        service.held |= {"immunax/alive/1": "left 143", "immunax/alive/2": f"{clock.now} 0 0"}
        first.round()
        pace.worked()
        clock.now += 1
    clock.now += 2
    with pytest.raises(EndedError, match="143"):
        first.round()


def test_the_first_ends_with_another_one_that_ends_otherwise_than_agreed(service, clock, raised_end):
    first = Watch(service, 0, ["a", "b"], 5)
    first.agreed = 143
    service.held["immunax/alive/1"] = "left 1"
    with pytest.raises(EndedError, match="1"):
        first.round()


def test_a_process_that_leaves_says_so(service, watched):
    watched.leave(2)
    assert service.held["immunax/alive/1"] == "left 2"
    watched.round()
    assert service.held["immunax/alive/1"] == "left 2"


def test_the_first_process_says_what_all_have_met_and_another_what_it_alone_has(service, watched):
    first = Watch(service, 0, ["a", "b", "c"], 1)
    assert first.first_says("the disk is full")
    assert not watched.first_says("the disk is full")
    assert watched.first_says("no such file")


def test_a_watch_that_is_over_tells_and_judges_no_more(service):
    over = Watch(service, 1, ["a", "b"], 0.01)
    over.start()
    watch.stop()
    service.held.clear()
    time.sleep(0.1)
    assert not service.held
    watch.stop()  # of none
