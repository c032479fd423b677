"""What a command is given, or finds, in the place of a file."""

import json
import os
import stat

import certified
import pandas as pd
import pytest

from immunax import leaderboard
from immunax.certificate import signing
from immunax.certificate.statement import canonical, own_digest
from immunax.certificate.verify import RECORDS, check
from immunax.conditions import records
from immunax.runtime.digest import of_file
from immunax.runtime.untrusted import parquet
from immunax.verify import main


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    return certified.certificate(tmp_path_factory.mktemp("issued"))


@pytest.fixture
def places(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


WRONG = ("folder", "bytes", "fifo", "none", "file/below", "x" * 300, "folder/\udcff\n\x1b[31m")


def told(captured, *words):
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert all(word in lines[0] for word in words)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("option", ["--key", "--policy"])
def test_what_is_no_key_and_no_policy_is_one_line(issued, places, capsys, option, name):
    assert main([str(issued), option, str(places / name)]) == 2
    told(capsys.readouterr(), "error: ")


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_certificate_is_one_line(places, capsys, name):
    assert main([str(places / name)]) == (1 if name == "bytes" else 2)
    captured = capsys.readouterr()
    assert len((captured.out + captured.err).splitlines()) == 1
    assert leaderboard.main([str(places / name), "--out", str(places / "board")]) != 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("folder", "exists already"),
        ("file/key.pem", "is a file"),
        ("x" * 300, "too long"),
        ("/", "no file's name"),
        ("", "no file's name"),
        ("/proc/key.pem", "/proc/"),
    ],
)
def test_a_key_that_cannot_be_written_is_one_line_and_leaves_nothing(places, capsys, monkeypatch, path, word):
    monkeypatch.chdir(places)
    before = sorted(places.rglob("*"))
    assert main(["--make-key", path]) == 2
    told(capsys.readouterr(), "error: ", word)
    assert sorted(places.rglob("*")) == before


def test_half_a_pair_of_keys_is_none(places, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", str(places / "key.pem"))

    monkeypatch.setattr(signing.os, "open", full)
    assert main(["--make-key", str(places / "key.pem")]) == 2
    assert not list(places.glob("key*"))
    monkeypatch.undo()
    assert main(["--make-key", str(places / "key.pem")]) == 0
    assert stat.S_IMODE((places / "key.pem").stat().st_mode) == 0o600


def test_a_table_that_unfolds_to_too_much_or_has_too_many_rows_is_one_failed_check(tmp_path, monkeypatch):
    path = certified.certificate(tmp_path)
    table = pd.read_parquet(tmp_path / RECORDS)
    folded = pd.concat([table.assign(unit="y" * 1000)] * 8)
    folded.to_parquet(tmp_path / RECORDS, index=False, compression="zstd")
    assert (tmp_path / RECORDS).stat().st_size < 100_000
    stated = json.loads(path.read_bytes())
    for entry in stated["predicate"]["records"]:
        entry["digest"]["sha256"] = of_file(tmp_path / entry["name"])
    stated["predicate"]["digest"]["sha256"] = own_digest(stated)
    path.write_bytes(canonical(stated))
    monkeypatch.setattr(parquet, "_MOST_BYTES", 1 << 22)
    [fault] = [each for each in check(path) if each.result == "failed"]
    assert "unfolds to more than" in fault.detail
    monkeypatch.setattr(parquet, "_MOST_ROWS", 100)
    [fault] = [each for each in check(path) if each.result == "failed"]
    assert f"it has {len(folded)} rows, more than 100" in fault.detail


def test_a_name_that_is_no_text_is_one_failed_check(tmp_path, capsys):
    path = certified.certificate(tmp_path)
    (tmp_path / "model" / "\udcff.bin").touch()
    assert main([str(path), "--model", str(tmp_path / "model")]) == 1
    out = capsys.readouterr().out
    assert out.count("failed") == 1
    assert "\\udcff.bin: its name is no UTF-8; rename it." in out


def test_more_states_than_a_report_can_draw_are_refused(issued, monkeypatch):
    monkeypatch.setattr(records, "MOST_STATES", 5)
    [fault] = [each for each in check(issued) if each.result == "failed"]
    assert "has 6 states, more than 5" in fault.detail
