"""Processes of the benchmark: each ends in a row, whatever becomes of it."""

import sys
import time
from pathlib import Path

import pytest
from accelerated.catalogue import EAGER, IMMUNAX
from accelerated.launch import Limits, run
from accelerated.record import DONE, FAILED, SKIPPED, STOPPED, UNTRIED, Report, Row, read, write

WRITES = """
import json, sys
json.dump({"status": "done", "seconds": [0.5], "units": 3, "facts": {"device": "a chip"}}, open(sys.argv[1], "w"))
"""
HANGS = "import time; time.sleep(600)"
LIMITS = Limits(60.0)


def of(**programs):
    """The command that runs a program of this text for each case."""
    return lambda case, side, to: [sys.executable, "-c", programs[case], str(to)] if case in programs else None


def ran(report, wanted, command, limits=LIMITS, at_once=1):
    told, kept = [], []
    return run(report, wanted, command, limits, told.append, kept.append, at_once), told, kept


def ended(program, limits=LIMITS):
    """The row of one process, and what was known of its device."""
    report, _, _ = ran(Report(False), [("case", IMMUNAX)], of(case=program), limits)
    (row,) = report.rows
    return row, report.facts.get("immunax")


def test_what_a_process_writes_is_its_row_and_what_it_says_of_its_device():
    row, facts = ended(WRITES)
    assert (row.status, row.seconds, row.rate, facts) == (DONE, (0.5,), 6.0, {"device": "a chip"})
    assert row.wall_seconds > 0


def test_one_that_hangs_is_stopped_at_its_limit_and_whatever_it_started_with_it(tmp_path):
    pid = tmp_path / "pid"
    starts = f"import subprocess, sys; other = subprocess.Popen([sys.executable, '-c', {HANGS!r}])"
    row, _ = ended(f"{starts}; open({str(pid)!r}, 'w').write(str(other.pid)); {HANGS}", Limits(5.0))
    assert (row.status, row.seconds) == (STOPPED, ())
    assert row.reason.startswith("after ")
    status = Path(f"/proc/{pid.read_text()}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ValueError('no such kernel')", "exit status 1: ValueError: no such kernel"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9: without a word"),
        ("import sys; sys.exit(0)", "exit status 0: without a word"),
    ],
)
def test_one_that_fails_without_a_row_is_told_by_its_last_words(program, reason):
    row, facts = ended(program)
    assert (row.status, row.reason, facts) == (FAILED, reason, None)


def test_one_that_says_why_it_failed_is_told_so_in_one_line():
    program = """
import json, sys
json.dump({"status": "failed", "reason": "XlaRuntimeError: out of\\nmemory" + 999 * "."}, open(sys.argv[1], "w"))
sys.exit(1)
"""
    row, _ = ended(program)
    assert row.status == FAILED
    assert row.reason == "XlaRuntimeError: out of memory".ljust(240, ".")


def test_one_without_a_python_is_skipped_with_what_to_give():
    report, told, _ = ran(Report(False), [("other", EAGER)], of())
    assert [(row.status, row.reason) for row in report.rows] == [
        (SKIPPED, "no Python with torch was given: --torch PYTHON")
    ]
    assert told == ["other, torch eager: skipped: no Python with torch was given: --torch PYTHON"]


def test_processes_run_one_after_the_other_unless_more_are_asked_for(tmp_path):
    waits = f"""
import pathlib, time
mine, other = (pathlib.Path({str(tmp_path)!r}, name) for name in NAMES)
mine.touch()
while not other.exists():
    time.sleep(0.01)
"""
    programs = {"a": waits.replace("NAMES", "('a', 'b')") + WRITES, "b": waits.replace("NAMES", "('b', 'a')") + WRITES}
    wanted = [("a", IMMUNAX), ("b", IMMUNAX)]
    report, _, _ = ran(Report(False), wanted, of(**programs), at_once=2)
    assert [row.status for row in report.rows] == [DONE, DONE]
    (tmp_path / "a").unlink()
    (tmp_path / "b").unlink()
    report, told, _ = ran(Report(False), wanted, of(**programs), Limits(5.0))
    assert [row.status for row in report.rows] == [STOPPED, DONE]
    assert told[0] == "a, immunax ..."
    assert told[1].startswith("a, immunax: stopped")


def test_a_row_that_fails_or_hangs_leaves_the_others_to_be_measured():
    wanted = [("hangs", IMMUNAX), ("fails", IMMUNAX), ("works", IMMUNAX)]
    command = of(hangs=HANGS, fails="raise SystemExit(3)", works=WRITES)
    report, _, kept = ran(Report(False), wanted, command, Limits(5.0))
    assert [row.status for row in report.rows] == [STOPPED, FAILED, DONE]
    assert [len(each.rows) for each in kept] == [1, 2, 3]


def test_nothing_is_started_once_the_minutes_are_spent():
    report, told, _ = ran(Report(False), [("works", IMMUNAX)], of(works=WRITES), Limits(60.0, time.monotonic() - 1))
    assert [(row.status, row.reason) for row in report.rows] == [(UNTRIED, "the minutes were spent")]
    assert told == ["works, immunax: not started: the minutes were spent"]


def test_a_process_ends_with_the_minutes_even_before_its_own_limit():
    begin = time.monotonic()
    wanted, command = [("hangs", IMMUNAX), ("works", IMMUNAX)], of(hangs=HANGS, works=WRITES)
    report, _, _ = ran(Report(False), wanted, command, Limits(600.0, begin + 3))
    assert [row.status for row in report.rows] == [STOPPED, UNTRIED]
    assert time.monotonic() - begin < 300


def test_what_a_report_has_is_not_measured_again(tmp_path):
    path = tmp_path / "report.json"
    known = Report(False, rows=(Row("works", IMMUNAX, seconds=(9.0,), units=1), Row("fails", IMMUNAX, FAILED, "once")))
    write(path, known)
    report, _, _ = ran(read(path).only(DONE), [("works", IMMUNAX), ("fails", IMMUNAX)], of(works=WRITES, fails=WRITES))
    assert [row.seconds for row in report.rows] == [(9.0,), (0.5,)]


def test_what_runs_is_stopped_where_the_run_is(tmp_path):
    pid = tmp_path / "pid"
    program = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); {HANGS}"

    def keep(report):
        raise KeyboardInterrupt

    failing = f"import time, pathlib\nwhile not pathlib.Path({str(pid)!r}).is_file(): time.sleep(0.01)"
    wanted, command = [("hangs", IMMUNAX), ("fails", IMMUNAX)], of(hangs=program, fails=failing)
    with pytest.raises(KeyboardInterrupt):
        run(Report(False), wanted, command, LIMITS, lambda text: None, keep, 2)
    assert not Path(f"/proc/{pid.read_text()}").exists()


def test_facts_of_each_side_are_those_of_its_first_process():
    report = Report(False).with_row(Row("a", IMMUNAX), {"device": "one", "memory": 7})
    report = report.with_row(Row("b", "immunax xla"), {"device": "one", "memory": 8}).with_row(Row("c", IMMUNAX))
    report = report.with_row(Row("a", EAGER), {"device": "two"})
    assert report.facts == {"immunax": {"device": "one", "memory": 7}, "torch": {"device": "two"}}
    assert (report.device, len(report.rows)) == ("one", 4)


@pytest.mark.parametrize("other", [{"device": "two", "versions": {}}, {"device": "one", "versions": {"jax": "2"}}])
def test_rows_of_another_device_or_version_are_not_put_beside_the_others(other):
    report = Report(False).with_row(Row("a", IMMUNAX), {"device": "one", "versions": {}})
    with pytest.raises(SystemExit, match="give another --out FILE"):
        report.with_row(Row("b", IMMUNAX), other)
