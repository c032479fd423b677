import pytest

from immunax.runs.frame import Frame, Row, UnknownColumnError
from immunax.runs.query import Query
from immunax.runtime.errors import UserError

ROWS = [
    {"run": "a", "seed": 0, "choices.defense": "tar", "config.n": 1, "config.N": 10, "results.m x.after.refusal": 0.5},
    {"run": "b", "seed": 1, "choices.defense": "lat", "config.n": 2, "config.N": 20},
    {"run": "c", "seed": 2, "choices.defense": "tar", "config.n": 3, "config.N": 30, "results.m x.after.refusal": 0.1},
]


@pytest.fixture
def query():
    return Query(Frame([Row(row) for row in ROWS]))


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("seed < 2 and defense = 'tar'", "a"),
        ("config.n = 2 or config.N = 30", "bc"),
        ('"results.m x.after.refusal" > 0.3', "a"),
        ('results."m x".after.refusal is null', "b"),
        ("run = 'a' -- and nothing else", "a"),
        ("seed = (select max(seed) from runs)", "c"),
        ("run like '%' and not (seed in (0, 1))", "c"),
        ("false", ""),
    ],
)
def test_a_condition_is_sql_over_names_of_columns(query, text, runs):
    assert "".join(row[0] for row in query.rows(["run"], query.where(text))) == runs


@pytest.mark.parametrize("text", ["defense = tar", "sed < 1"])
def test_a_condition_about_no_column_says_so(query, text):
    with pytest.raises(UnknownColumnError, match=r"no column.*A text stands in single quotes"):
        query.where(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed <", "syntax error"),
        ("1=1); drop table runs; select (1", "SELECT"),
        ("true; select 1", "syntax error"),
        ("", "Conversion Error"),
        ("seed, run", "Conversion Error"),
        ("count(*) > 1", "aggregates"),
        ("defense < 3", "choices.defense holds text"),
        ("nofunction(seed)", "nofunction does not exist"),
    ],
)
def test_a_condition_that_is_none_is_one_line(query, text, told):
    with pytest.raises(UserError, match=told) as error:
        query.rows(["run"], query.where(text))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("where=")


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{file}')",
        "select * from read_csv('{file}')",
        "select * from '{file}'",
        "select * from glob('{folder}/*')",
        "copy (select 1) to '{folder}/out.csv'",
        "attach '{folder}/other.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "select * from read_parquet('https://localhost/x.parquet')",
        "select * from secret",
    ],
)
def test_no_question_reaches_files_or_the_network_or_python(query, tmp_path, sql):
    secret = [(1,)]  # DuckDB would take a variable of Python's for a table
    assert secret
    (tmp_path / "file.csv").write_text("a\n1\n")
    with pytest.raises(
        UserError, match=r"disabled (by|through) configuration|does not exist|configuration has been locked"
    ):
        query._ask("x", sql.format(file=tmp_path / "file.csv", folder=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file.csv"]


def test_a_condition_with_a_function_that_reads_files_is_refused(query, tmp_path):
    (tmp_path / "file").write_text("a")
    with pytest.raises(UserError, match="disabled by configuration"):
        query.rows(["run"], query.where(f"run in (from read_text('{tmp_path / 'file'}'))"))


def test_rows_are_sorted_with_what_lacks_a_value_last(query):
    name = "results.m x.after.refusal"
    assert [row[0] for row in query.rows(["run"], sort=(name, False))] == ["c", "a", "b"]
    assert [row[0] for row in query.rows(["run"], sort=(name, True), limit=2)] == ["a", "c"]


def test_groups_keep_their_rows_in_order(query):
    assert query.groups(["choices.defense"], ["run", "seed"]) == [
        (("lat",), [("b", 1)]),
        (("tar",), [("a", 0), ("c", 2)]),
    ]
    assert query.groups([], ["run"]) == [((), [("a",), ("b",), ("c",)])]


def test_rows_are_counted_by_the_values_of_a_column(query):
    assert query.counts("choices.defense") == {"lat": 1, "tar": 2}
    assert query.counts("choices.defense", query.where("seed > 0")) == {"lat": 1, "tar": 1}
    assert query.counts("choices.defense", known="results.m x.after.refusal") == {"tar": 2}
    either = query.where("seed = 1 or seed = 2")
    assert query.counts("choices.defense", either, known="results.m x.after.refusal") == {"tar": 1}
    assert query.counts("results.m x.after.refusal") == {0.1: 1, 0.5: 1, None: 1}


def test_columns_that_vary_within_a_group_are_told(query):
    names = ["seed", "choices.defense", "results.m x.after.refusal"]
    assert query.varying(["choices.defense"], names) == ["seed", "results.m x.after.refusal"]
    assert query.varying([], names) == names
    assert query.varying([], ["choices.defense"], query.where("defense = 'tar'")) == []
    assert query.varying([], ["results.m x.after.refusal"], query.where("seed < 2")) == ["results.m x.after.refusal"]
    assert query.varying(["run"], names) == []
    assert query.varying([], names, query.where("false")) == []
    assert query.varying(["seed"], []) == []


def test_values_of_any_text_come_back_as_they_are():
    texts = ["a\0b", "'; drop table runs; --", "\\", "\U0001f600", ""]
    query = Query(Frame([Row({"run": text}) for text in texts]))
    assert [row[0] for row in query.rows(["run"])] == texts
