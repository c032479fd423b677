"""The door for strangers' files: what it lets in, what it refuses, and that nothing of it hangs or fills the memory."""

import bz2
import gzip
import json
import os
import socket
import time
from dataclasses import dataclass

import pyarrow
import pytest
from pyarrow import parquet as writer

from immunax.runtime.errors import UserError, shown
from immunax.runtime.untrusted import files, parquet, templates, unfold, values
from immunax.runtime.untrusted.confined import Confined, FaultError, Limits
from immunax.runtime.untrusted.records import made
from immunax.runtime.untrusted.values import MalformedError, loads, parse_yaml


def says(pattern):
    return pytest.raises(UserError, match=pattern)


def test_a_link_to_a_plain_file_is_read_by_what_it_holds(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    assert files.read_text(tmp_path / "link") == "x"


def test_what_is_no_plain_file_is_refused_and_never_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "to_fifo").symlink_to("fifo")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "nothing").symlink_to("elsewhere")
    bound = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    bound.bind("socket")
    kinds = {
        "fifo": "a FIFO",
        "to_fifo": "a FIFO",
        "device": "a device",
        ".": "a folder",
        "socket": "cannot be read",
        "nothing": "a link",
    }
    for name, kind in kinds.items():
        with says(kind):
            files.read_bytes(tmp_path / name)
    for name in ("x" * 5000, "a\0b", "absent"):
        with says("check the path"):
            files.read_bytes(tmp_path / name)
        assert not files.is_plain(tmp_path / name)


def test_a_file_past_the_stated_size_is_refused_before_it_is_parsed(tmp_path):
    (tmp_path / "large").write_bytes(b" " * 101)
    with says("more than 100 bytes"):
        files.read_bytes(tmp_path / "large", 100)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("[NaN]", "NaN"),
        ("[1e999]", "not finite"),
        ("[-Infinity]", "-Infinity"),
        (f"[{'9' * 41}]", "41 digits"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\ud800": 1}', "surrogate"),
        ("[" + "0," * 1_000_001 + "0]", "more than 1000000 values"),
        (b"\xff", "not UTF-8 at byte 0"),
        ("{", "not valid JSON"),
    ],
)
def test_json_past_a_limit_is_refused_with_its_reason(text, reason):
    with pytest.raises(MalformedError, match=reason):
        loads(text)


def test_settings_as_they_are_published_are_within_the_limits():
    assert loads('{"model_max_length": 1000000000000000019884624838656, "x": ["é", 1.5, null]}')["x"][0] == "é"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x [1]\nb: *x", "repeats an anchor"),
        ("!!python/object/apply:os.system [id]", "kind"),
        ("a: 2001-01-01", "kind"),
        ("a: 1\na: 2", "twice"),
        ("1: 2", "no text"),
        ("a: .nan", "not finite"),
        ("a: " + "[" * 500 + "]" * 500, "nested|Recursion"),
        ("a: [", "line 1"),
    ],
)
def test_yaml_that_json_has_no_word_for_is_refused(text, reason):
    with says(f"policy: not readable as YAML.*{reason}"):
        parse_yaml(text, "policy")


def test_plain_yaml_is_read():
    assert parse_yaml("a: {b: 1e-3, c: true}\nd: [x, null]", "policy") == {
        "a": {"b": "1e-3", "c": True},
        "d": ["x", None],
    }


def test_a_message_is_one_short_line_whatever_a_stranger_wrote():
    line = str(UserError("file: key 'a\nerror: all passed\x1b[2J" + "x" * 100_000))
    assert line.isprintable()
    assert len(line) < 2100
    assert len(shown(["x" * 100_000])) == 80


@pytest.mark.parametrize(("ending", "fold"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_bomb_is_refused_while_it_unfolds_and_a_plain_text_is_not(tmp_path, ending, fold, monkeypatch):
    monkeypatch.setattr(unfold, "FREE", 1 << 20)
    (tmp_path / f"bomb{ending}").write_bytes(fold(bytes(1 << 22)))
    (tmp_path / f"text{ending}").write_bytes(fold(b"a text\n" * 9))
    with unfold.open_unfolded(tmp_path / f"text{ending}") as file:
        assert file.read() == b"a text\n" * 9
    with unfold.open_unfolded(tmp_path / f"bomb{ending}") as file, says("unfolds to more than"):
        while file.read(1 << 16):
            pass


@dataclass(frozen=True)
class Pair:
    """Two fields."""

    name: str
    size: float = 1.0


def test_a_record_has_its_fields_each_of_its_type():
    assert made(Pair, {"name": "x", "size": 2}) == Pair("x", 2)
    for value in (None, [], {}, {"name": 3}, {"name": "x", "size": "y"}, {"name": "x", "more": 1}):
        with pytest.raises(MalformedError):
            made(Pair, value)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 2 seconds"),
        ("{{ 'x' * 10**9 }}", "more memory"),
        ("{% for i in range(40) %}{{ 'x' * 10**6 }}{% endfor %}", "makes more than"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe|access"),
        ("x" * 2_000_000, "at most"),
    ],
)
def test_a_template_that_passes_a_limit_is_told_of_and_the_next_one_renders(template, reason):
    started = time.monotonic()
    with pytest.raises(FaultError, match=reason):
        templates.render(template, {})
    assert time.monotonic() - started < 60
    assert templates.render("{{ a }}\ud800", {"a": "b"}) == "b\ud800"


def test_a_parquet_file_that_unfolds_past_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unfold, "FREE", 1 << 20)
    column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5000, pyarrow.int32()), ["x" * 10_000])
    writer.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(FaultError, match="unfolds to more than 100 times its size"):
        list(parquet.rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [({"a": ["x"], "b": [1]}, None), ({"b": [1], "a": ["x"]}, "columns b, a"), ({"a": [1], "b": [1]}, "holds int64")],
)
def test_a_table_has_the_columns_that_it_is_read_for(tmp_path, columns, reason):
    writer.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    if reason is None:
        assert parquet.table(tmp_path / "a.parquet", {"a": "string", "b": "int64"}).to_pydict() == columns
        return
    with pytest.raises(FaultError, match=reason):
        parquet.table(tmp_path / "a.parquet", {"a": "string", "b": "int64"})


def test_a_child_is_used_again_and_a_half_read_answer_never_reaches_another(tmp_path):
    writer.write_table(pyarrow.table({"a": list(range(5000))}), tmp_path / "a.parquet")
    first = parquet.rows(tmp_path / "a.parquet")
    second = parquet.rows(tmp_path / "a.parquet")
    assert [next(first)["a"], next(second)["a"], next(first)["a"]] == [0, 0, 1]
    first.close()
    assert sum(row["a"] for row in second) == sum(range(5000))
    assert len(list(parquet.rows(tmp_path / "a.parquet"))) == 5000


def test_a_program_that_is_not_there_is_a_fault_and_no_hang():
    with pytest.raises(FaultError):
        list(Confined("immunax.nowhere", Limits(1 << 30, 1.0, 10)).ask(json.loads("{}")))


def test_values_of_a_file_are_named_with_their_line(tmp_path):
    (tmp_path / "a.json").write_text('{\n"a": 1,\n}')
    with says(r"a\.json: not readable as JSON: line 3 is not valid JSON"):
        values.read_json(tmp_path / "a.json")
