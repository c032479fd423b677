"""Every attempt of a cheat is caught, and told as it has to be."""

import pytest
from adversary.attempt import run
from adversary.registry import ATTEMPTS
from adversary.shared import shared

_ALL = [attempt for attempts in ATTEMPTS.values() for attempt in attempts]
_KNOWN = {f"B{number}" for number in range(1, 24)}


def _marked(attempt):
    marks = [pytest.mark.slow] if attempt.slow else []
    return pytest.param(attempt, id=attempt.name, marks=marks)


@pytest.fixture(autouse=True, scope="module")
def _shared():
    with shared():
        yield


@pytest.mark.parametrize("attempt", [_marked(each) for each in _ALL])
def test_an_attempt_is_caught_and_told(attempt, tmp_path):
    found = run(attempt, tmp_path)
    assert found.caught, found.told


def test_there_are_forty_attempts_and_one_of_every_known_kind():
    assert len(_ALL) >= 40
    assert len({each.name for each in _ALL}) == len(_ALL)
    assert {each.finding for each in _ALL} - {""} == _KNOWN
