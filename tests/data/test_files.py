import gzip
import json
import re
import socket

import datasets
import pandas
import pytest

from immunax.data import files, text_files
from immunax.data.files import Form
from immunax.runtime.errors import UserError

ROWS = [{"prompt": "one", "response": "1"}, {"prompt": "two", "response": "2"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read_file(path, form) -> list[files.Row]:
    return list(files.read_file(path, form))


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


def test_a_csv_file_with_the_index_that_pandas_writes_is_read(tmp_path):
    pandas.DataFrame(ROWS).to_csv(tmp_path / "a.csv")
    assert read_file(tmp_path / "a.csv", Form()) == ROWS
    pandas.read_csv(tmp_path / "a.csv", dtype=str).rename(columns=lambda name: name.replace("Unnamed: 0", "")).to_csv(
        tmp_path / "twice.csv"
    )
    assert (tmp_path / "twice.csv").read_text().startswith(",,prompt")
    assert read_file(tmp_path / "twice.csv", Form()) == ROWS


def test_columns_without_a_name_are_read_past(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,response,, \none,1,,\ntwo,2,x,y\n")
    assert read_file(tmp_path / "a.csv", Form()) == [
        {"prompt": "one", "response": "1"},
        {"prompt": "two", "response": "2"},
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("line", "delimiter"), [("sep=,", ","), ("sep=;", ";"), ("SEP=\t", "\t")])
def test_the_line_in_which_a_spreadsheet_names_its_delimiter_is_read_as_that(tmp_path, line, delimiter, end):
    cells = [line, f"prompt{delimiter}response", f"one{delimiter}1"]
    (tmp_path / "a.csv").write_bytes(("\ufeff" + end.join(cells) + end).encode())
    assert read_file(tmp_path / "a.csv", Form()) == [{"prompt": "one", "response": "1"}]
    (tmp_path / "b.csv").write_text("\n".join([*cells, "two"]))
    with pytest.raises(UserError, match="line 4 has 1 cells, the header 2"):
        read_file(tmp_path / "b.csv", Form(delimiter=delimiter))
    (tmp_path / "c.csv").write_text("sep=x1\none\n")
    assert read_file(tmp_path / "c.csv", Form()) == [{"sep=x1": "one"}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
def test_one_object_over_several_lines_is_one_row(tmp_path, name):
    row = {"prompt": "one", "messages": [{"role": "user", "content": "hi"}]}
    text = "\n" + json.dumps(row, indent=2)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert read_file(tmp_path / name, Form()) == [row]


def test_a_cell_longer_than_the_librarys_own_limit_is_read(tmp_path):
    long = "x" * 200_000
    (tmp_path / "a.csv").write_text(f"prompt,response\n{long},1\n")
    assert read_file(tmp_path / "a.csv", Form()) == [{"prompt": long, "response": "1"}]


def test_rows_of_a_json_file_may_have_other_columns_and_types_however_large_it_is(tmp_path):
    rows = [{"id": n, "prompt": "x" * 1000} for n in range(11_000)]
    rows += [{"id": "late", "prompt": "y", "meta": "none"}, {"prompt": "z", "meta": {"k": 1}, "note": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (tmp_path / "a.jsonl").stat().st_size > 10 << 20  # past which a table's columns were fixed
    assert read_file(tmp_path / "a.jsonl", Form()) == rows


def test_a_line_ends_where_json_says_and_nowhere_else(tmp_path):
    row = {"prompt": "one\u2028two\x85three"}
    (tmp_path / "a.jsonl").write_text(
        json.dumps(row, ensure_ascii=False) + "\r\n\r\n" + json.dumps(row), encoding="utf-8-sig"
    )
    assert read_file(tmp_path / "a.jsonl", Form()) == [row, row]


def test_a_line_that_unfolds_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST", 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"a": "' + b"x" * 2000 + b'"}'))
    with pytest.raises(UserError, match="line 1 has more than 1000 characters"):
        read_file(tmp_path / "a.jsonl.gz", Form())


def test_rows_come_while_the_file_is_read(tmp_path):
    with (tmp_path / "a.jsonl").open("w") as file:
        file.write(LINES + "{")
    rows = files.read_file(tmp_path / "a.jsonl", Form())
    assert [next(rows), next(rows)] == ROWS
    with pytest.raises(UserError, match="line 3 is not valid JSON"):
        next(rows)


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
        ("a.json", b"  \n", Form(), "holds no rows"),
        ("a.jsonl", b'{"prompt": "one"}\n{"prompt": \n', Form(), "line 2 is not valid JSON"),
        (
            "a.jsonl",
            b'\n{"prompt": "C:\\data"}\n',
            Form(),
            "line 2 is not valid JSON (Invalid \\escape, at character 15)",
        ),
        (
            "a.jsonl",
            b'{"a": 1}\n{"p": "x", "r": {"k": 1, "k": 2}}\n',
            Form(),
            "line 2 has the key 'k' twice in one object",
        ),
        ("a.json", b'[{"p": "x", "p": "y"}]', Form(), "it has the key 'p' twice in one object"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", Form(), "line 1 is nested too deeply"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", Form(), "line 1 is not valid JSON (Exceeds the limit"),
        ("a.jsonl", '{"prompt": "one"}\n'.encode("utf-16"), Form(), "not UTF-8 text but UTF-16; save it as UTF-8"),
        (
            "a.csv",
            b'prompt,response\none,1\ntwo,"2\nthree,3\n',
            Form(),
            "line 4: unexpected end of data; check its quotes",
        ),
        ("a.csv", b"prompt,response\none\n", Form(), "line 2 has 1 cells, the header 2"),
        ("a.csv", b",,\none,two,\n", Form(), "no column has a name; name them with form.columns"),
        ("a.json", b'{\n "a": 1,\n "b" 2\n}', Form(), "line 3 is not valid JSON (Expecting ':' delimiter"),
        ("a.json", b'{\n "a": 1\n}\n{\n "a": 2\n}', Form(), "line 4 is not valid JSON (Extra data"),
        ("a.jsonl", b'{"a": 1\n{"a": 2}\n', Form(), "line 1 is not valid JSON"),
        ("a.csv", b"prompt,prompt\none,two\n", Form(), "two columns are called 'prompt'"),
        ("a.csv", b"prompt||response\n", Form(delimiter="||"), "form.delimiter='||': expected one character"),
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


def test_a_line_of_a_table_is_of_bounded_length(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "LONGEST", 1000)
    (tmp_path / "a.csv").write_text("a,b\n" + "," * 2000 + "\n")
    with pytest.raises(UserError, match="line 2 has more than 1000 characters"):
        read_file(tmp_path / "a.csv", Form())
