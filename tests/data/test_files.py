import gzip
import json
import re
import socket

import datasets
import pytest

from immunax.data.files import Form, read_file
from immunax.runtime.errors import UserError

ROWS = [{"prompt": "one", "response": "1"}, {"prompt": "two", "response": "2"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def test_each_kind_of_file_gives_the_same_rows(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "b.json").write_text(json.dumps(ROWS, indent=2))
    (tmp_path / "c.jsonl").write_text(LINES)
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (tmp_path / "e.csv").write_text("prompt,response\none,1\ntwo,2\n")
    (tmp_path / "f.tsv").write_text("prompt\tresponse\none\t1\ntwo\t2\n")
    (tmp_path / "g.json").write_text(json.dumps({"rows": ROWS, "note": []}))
    datasets.Dataset.from_list(ROWS).to_parquet(str(tmp_path / "h.parquet"))
    for name in ("a.json", "b.json", "c.jsonl", "d.jsonl.gz", "e.csv", "f.tsv", "h.parquet"):
        assert read_file(tmp_path / name, Form()) == ROWS, name
    assert [row["prompt"] for row in read_file(tmp_path / "g.json", Form(field="rows"))] == ["one", "two"]


def test_plain_text_and_a_list_of_strings_have_the_column_text(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.json").write_text('["one", "two"]')
    (tmp_path / "c.json").write_text('{"instructions": ["one", "two"], "tags": [[1], []]}')
    assert read_file(tmp_path / "a.txt", Form()) == [{"text": "one"}, {"text": "two"}]
    assert read_file(tmp_path / "b.json", Form()) == [{"text": "one"}, {"text": "two"}]
    assert read_file(tmp_path / "c.json", Form(field="instructions")) == [{"text": "one"}, {"text": "two"}]


def test_every_csv_cell_stays_text(tmp_path):
    (tmp_path / "a.csv").write_text('id,answer\n007,NA\n8,"a, ""b""\nc"\n')
    rows = read_file(tmp_path / "a.csv", Form())
    assert rows == [{"id": "007", "answer": "NA"}, {"id": "8", "answer": 'a, "b"\nc'}]


def test_a_lone_quote_in_a_tsv_file_is_text(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\nsay "hi\t1\nbye\t0\n')
    assert read_file(tmp_path / "a.tsv", Form()) == [{"text": 'say "hi', "label": "1"}, {"text": "bye", "label": "0"}]


def test_delimiter_and_column_names_can_be_told(tmp_path):
    (tmp_path / "a.csv").write_text("one;1\ntwo;2\n")
    assert read_file(tmp_path / "a.csv", Form(delimiter=";", columns=["prompt", "response"])) == ROWS


def test_the_lines_of_a_text_file_can_have_cells(tmp_path):
    (tmp_path / "a.txt").write_text('one||1\ntwo||"2|\n')
    form = Form(delimiter="||", columns=["prompt", "response"])
    assert read_file(tmp_path / "a.txt", form) == [ROWS[0], {"prompt": "two", "response": '"2|'}]
    (tmp_path / "b.txt").write_text("one||1\ntwo\n")
    with pytest.raises(UserError, match=r"b\.txt: line 2 has 1 cells .* expected 2"):
        read_file(tmp_path / "b.txt", form)
    with pytest.raises(UserError, match=r"no form\.columns"):
        read_file(tmp_path / "b.txt", Form(delimiter="||"))


def test_reading_writes_nothing_beside_the_data(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    read_file(tmp_path / "a.jsonl.gz", Form())
    assert [path.name for path in tmp_path.rglob("*")] == ["a.jsonl.gz"]


def test_reading_a_local_file_asks_nothing_of_the_network(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    (tmp_path / "a.jsonl").write_text(LINES)
    asked = []
    monkeypatch.setattr(datasets.load, "increase_load_count", asked.append, raising=False)
    assert read_file(tmp_path / "a.jsonl", Form()) == ROWS
    assert asked == []


@pytest.mark.parametrize(
    ("name", "contents", "form", "message"),
    [
        ("a.jsonl", b"", Form(), "is empty"),
        ("a.csv", b"\n", Form(), "empty"),
        ("a.csv", b"prompt,response\n", Form(), "no rows"),
        ("a.json", b"[]", Form(), "no rows"),
        ("a.json", b"  \n", Form(), "empty"),
        ("a.jsonl", b'{"prompt": "one"}\n{"prompt": \n', Form(), "line 2 is not valid JSON"),
        ("a.jsonl", b'"one"\n', Form(), "line 1 is a str; expected one object a line"),
        ("a.json", b'[{"a": "b"},\n {]', Form(), "line 2 is not valid JSON"),
        ("a.json", b'[1, {"a": "b"}]', Form(field="rows"), "the file is a list; expected one object"),
        ("a.json", b'{"rows": []}', Form(field="row"), "Did you mean 'rows'?"),
        ("a.json", b'{"rows": [', Form(field="rows"), "line 1 is not valid JSON"),
        ("a.json", b'{"rows": 3}', Form(field="rows"), "field 'rows' is not a list of rows"),
        ("a.csv", b"prompt,response\none,1\ntwo,2,3\n", Form(), "line 3 has 3 cells"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', Form(), "not UTF-8"),
        ("a.csv", b"prompt\n\xff\n", Form(), "not UTF-8"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], Form(), "gzip data is broken"),
        ("a.csv.gz", b"prompt,response\n", Form(), "gzip data is broken"),
        ("a.parquet", b"not parquet", Form(), "it is not a parquet file"),
        ("a.xlsx", b"x", Form(), "unknown kind '.xlsx'"),
    ],
)
def test_a_broken_file_is_a_one_line_user_error(tmp_path, name, contents, form, message):
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_file(tmp_path / name, form)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_suggests_its_neighbour_or_names_the_missing_folder(tmp_path):
    (tmp_path / "train.jsonl").write_text(LINES)
    with pytest.raises(UserError, match=r"Did you mean 'train\.jsonl'"):
        read_file(tmp_path / "trian.jsonl", Form())
    with pytest.raises(UserError, match=r"Folder .*absent does not exist; set data\.root"):
        read_file(tmp_path / "absent" / "deep" / "train.jsonl", Form())
