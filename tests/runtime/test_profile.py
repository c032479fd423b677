from contextlib import suppress

import jax
import jax.numpy as jnp
import pytest
from profiles import annotated, planes

from immunax.runtime import profile
from immunax.runtime.errors import UserError
from immunax.runtime.profile import Steps


@jax.jit
def _work(x):
    return jnp.tanh(x @ x)


def _loop(name, steps, x=None, begun=0):
    x = jnp.ones((64, 64)) if x is None else x
    for number in range(begun + 1, begun + steps + 1):
        with profile.step(name, number, x):
            x = _work(x)
    return x


def test_what_is_asked_for_is_a_number_of_steps_or_the_first_and_the_last():
    assert profile.read(None) is None
    assert profile.read(3) == profile.read("3") == Steps(3)
    assert profile.read("10-12") == Steps(3, 10)


@pytest.mark.parametrize("asked", [0, -1, 101, "5-4", "0-3", "1-101", "x", "", True, 2.5, [1, 2], "1-2-3"])
def test_anything_else_is_refused_in_one_line(asked):
    with pytest.raises(UserError, match=r"^trace=.*: expected a number of steps.*at most 100 steps\.$"):
        profile.read(asked)


def test_the_steps_behind_the_first_two_are_recorded_with_their_numbers_and_no_others(tmp_path, capsys):
    with profile.recorded(Steps(2), profile.TRAIN, tmp_path):
        _loop(profile.ATTACK, 4)  # another loop
        _loop(profile.TRAIN, 7, begun=10)
    assert annotated(tmp_path) == {"train": [13, 14]}
    assert "/host:CPU" in planes(tmp_path)
    assert "steps 13 to 14 of the train loop" in capsys.readouterr().err


def test_named_steps_are_recorded_however_many_there_are_in_the_end(tmp_path):
    with profile.recorded(Steps(5, 3), profile.TRAIN, tmp_path):
        _loop(profile.TRAIN, 4)
    assert annotated(tmp_path) == {"train": [3, 4]}


def test_a_loop_that_goes_on_behind_the_named_steps_is_not_recorded(tmp_path, capsys):
    with profile.recorded(Steps(2, 3), profile.TRAIN, tmp_path):
        _loop(profile.TRAIN, 3, begun=8)
    assert not (tmp_path / "trace").exists()
    assert "trace: no step was recorded" in capsys.readouterr().err


def test_who_does_not_lead_takes_the_same_steps_and_records_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "is_leader", lambda: False)
    with profile.recorded(Steps(2), profile.ATTACK, tmp_path):
        taken = []
        for begin, end in profile.parts(profile.ATTACK, 0, 9):
            with profile.step(profile.ATTACK, begin + 1, ()):
                taken.append((begin, end))
    assert taken == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 9)]
    assert not (tmp_path / "trace").exists()


def test_there_is_one_profile_a_run_and_of_the_first_loop_that_is_long_enough(tmp_path):
    with profile.recorded(Steps(2), profile.ATTACK, tmp_path):
        _loop(profile.ATTACK, 2)
        _loop(profile.ATTACK, 5)
        _loop(profile.ATTACK, 5)
    assert annotated(tmp_path) == {"attack": [3, 4]}


def test_a_loop_that_could_take_its_steps_at_once_takes_those_by_themselves_that_are_recorded(tmp_path):
    assert list(profile.parts(profile.ATTACK, 2, 9)) == [(2, 9)]
    taken = []
    with profile.recorded(Steps(2), profile.ATTACK, tmp_path):
        assert list(profile.parts(profile.TRAIN, 0, 9)) == [(0, 9)]
        for begin, end in profile.parts(profile.ATTACK, 0, 9):
            with profile.step(profile.ATTACK, begin + 1, ()):
                taken.append((begin, end))
    assert taken == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 9)]


def test_other_work_between_steps_ends_it(tmp_path):
    with profile.recorded(Steps(9), profile.ATTACK, tmp_path):
        x = _loop(profile.ATTACK, 4)
        profile.pause(profile.ATTACK, x)
        _loop(profile.ATTACK, 4, x, begun=4)
    assert annotated(tmp_path) == {"attack": [3, 4]}


def test_a_loop_that_is_too_short_leaves_nothing_and_a_line_says_so(tmp_path, capsys):
    with profile.recorded(Steps(2), profile.TRAIN, tmp_path):
        _loop(profile.TRAIN, 2)
    assert not (tmp_path / "trace").exists()
    assert "trace: no step was recorded" in capsys.readouterr().err


def test_an_error_within_a_profile_ends_it_and_the_next_run_may_have_one(tmp_path):
    with suppress(ZeroDivisionError), profile.recorded(Steps(3), profile.TRAIN, tmp_path / "one"):
        _loop(profile.TRAIN, 3)
        raise ZeroDivisionError
    with profile.recorded(Steps(1), profile.TRAIN, tmp_path / "two"):
        _loop(profile.TRAIN, 4)
    assert annotated(tmp_path / "one") == {"train": [3]}
    assert annotated(tmp_path / "two") == {"train": [3]}
