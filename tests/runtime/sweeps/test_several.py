"""A sweep whose runs are each done by two processes together: what ends a run ends it in both, or the job."""

import json

import processes
import pytest
import sweeping

from immunax.runtime import lock


def swept(home, *overrides):
    return sweeping.together(home, 2, *overrides, python=processes.python())


def done(home):
    return sorted(
        json.loads(each.read_text())["results"]["processes"] for each in home.glob("outputs/*/*/manifest.json")
    )


def test_a_run_that_fails_in_all_of_them_does_not_end_the_others(tmp_path):
    found = swept(tmp_path, "x=0.85,0.95,0.5", "objective=results.y")
    assert [each.status for each in found] == [2, 2], found
    assert found[0].err.count("error: failed at 0.85") == 1
    assert "2 of the sweep's jobs failed" in found[0].err
    assert found[1].err == ""
    assert sweeping.done(tmp_path) == {"x=0.5"}
    assert done(tmp_path) == [2]


def test_a_run_in_whose_folder_another_process_is_at_work_is_left_out_by_all(tmp_path):
    folder = tmp_path / "outputs" / "one" / "x=0.4"
    folder.mkdir(parents=True)
    with lock.held(folder / lock.FILE, wait=False):
        found = swept(tmp_path, "x=0.4,0.5")
    assert [each.status for each in found] == [2, 2], found
    assert "another process is at work in" in found[0].err
    assert sweeping.done(tmp_path) == {"x=0.5"}


@pytest.mark.slow
@pytest.mark.parametrize("alone", [0, 1])
def test_a_run_that_fails_in_one_of_them_alone_ends_the_job_by_its_mistake_in_both(tmp_path, alone):
    found = swept(tmp_path, "x=0.4,0.85,0.5", f"alone={alone}", "distributed.timeout=8")
    assert [each.status for each in found] == [2, 2], found
    assert f"failed in process {alone} alone: the job ends, and goes on where it is started again" in found[alone].err
    assert "Traceback" not in found[0].err + found[1].err
    assert sweeping.done(tmp_path) == {"x=0.4"}


@pytest.mark.slow
@pytest.mark.parametrize("alone", [0, 1])
def test_a_process_that_sleeps_where_the_others_wait_for_it_is_named_by_them(tmp_path, alone):
    found = swept(tmp_path, "x=0.4,1.1", f"alone={alone}", "distributed.timeout=8")
    assert [each.status for each in found] == [142, 142], found
    assert f"error: process {alone} on " in found[1 - alone].err
    assert "is behind the others and has not gone on for 8 s" in found[1 - alone].err
    assert sweeping.done(tmp_path) == {"x=0.4"}
