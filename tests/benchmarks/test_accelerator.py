"""The command as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from accelerated.catalogue import CASES, IMMUNAX, PEAK
from accelerated.record import DONE, SKIPPED, UNTRIED, read

COMMAND = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "accelerator.py")]


def command(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_with_no_minutes_left_every_row_says_so_and_the_table_can_be_shown_again(tmp_path):
    out = tmp_path / "report.json"
    ran = command("--tiny", "--minutes", 0, "--only", "tar", "decoding", "--out", out)
    assert ran.returncode == 0, ran.stderr
    assert [(row.case, row.status) for row in read(out).rows] == [
        (PEAK, UNTRIED),
        *((name, UNTRIED) for name in ("decoding", "decoding", "tar")),
    ]
    assert command("--show", out).stdout == ran.stdout
    assert "not started: the minutes were spent" in ran.stdout


def test_a_file_of_other_sizes_is_refused_in_one_line(tmp_path):
    out = tmp_path / "report.json"
    command("--tiny", "--minutes", 0, "--only", "tar", "--out", out)
    refused = command("--minutes", 0, "--only", "tar", "--out", out)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "give another --out FILE" in refused.stderr


@pytest.mark.slow
def test_every_case_runs_tiny_on_a_cpu(tmp_path):
    out = tmp_path / "report.json"
    ran = command("--tiny", "--out", out, "--limit", 600)
    report = read(out)
    ours = {(row.case, row.side): row for row in report.rows if row.side.startswith(IMMUNAX)}
    elsewhere = {("attention", "immunax cudnn"), ("attention", "immunax splash")}
    assert {key: row.reason for key, row in ours.items() if row.status != DONE and key not in elsewhere} == {}
    assert {ours[key].status for key in elsewhere} == {SKIPPED}
    assert {case.name for case in CASES} == {case for case, _ in ours} - {PEAK}
    for key in ours.keys() - elsewhere:
        row = ours[key]
        assert row.rate > 0, key
        assert row.flops is not None, key
        assert row.peak_bytes or row.case == PEAK, key
    theirs = [row for row in report.rows if not row.side.startswith(IMMUNAX)]
    assert {(row.status, row.reason) for row in theirs} == {(SKIPPED, "no Python with torch was given: --torch PYTHON")}
    assert ran.stdout.count("not measured here") >= 12
    assert command("--show", out).stdout == ran.stdout
