import json

import numpy as np

from immunax.conditions.episode import Course, Episode
from immunax.conditions.fall import fall
from immunax.data.chat import Counts
from immunax.data.dialog import ask
from immunax.judges.evaluate import Scores
from immunax.judges.likelihood import Likelihood
from immunax.runtime.metrics import Metrics, read
from immunax.stages import report

SECRET = "the answer must not be written"


def _episode(shift):
    scores = Scores(
        {"refusal": np.array([0.0, 1.0]), "other": np.array([0.25, np.nan])},
        Likelihood(np.array([4.0 + shift]), np.array([2.0])),
        Likelihood(np.array([3.0]), np.array([3.0])),
    )
    return Episode(
        scores,
        scores,
        Course(
            np.array([2.0, 1.0]),
            np.array([0, 2]),
            {"refusal": np.array([[0.0, 0.0], [1.0, 1.0]])},
            np.array([0.0, 10.0]),
            np.array([0.0, 4e9]),
        ),
    )


EPISODES = {"start model": _episode(0.0), "immunized": _episode(2.0)}
WHOLE = {name: {"attack": Counts(2, 0, 0, 20, 20)} for name in ("start model", "immunized", "one")}
PROMPTS = (ask("one", SECRET), ask("two", SECRET))


def test_a_run_delivers_table_records_figure_and_metrics(tmp_path, capsys):
    with Metrics(tmp_path) as metrics:
        report.deliver(tmp_path, "a title", EPISODES, PROMPTS, metrics, WHOLE)
        report.deliver(tmp_path, "a title", EPISODES, PROMPTS, metrics, WHOLE)
    shown = capsys.readouterr().out
    assert "a title" in shown
    assert "0.50 [0.01, 0.99]" in shown
    assert (tmp_path / report.FIGURE).read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (tmp_path / report.RECORDS).read_text().splitlines()]
    assert len(records) == 2 * 2 * (2 + 1 + 1)
    assert records[1]["other"] is None
    assert SECRET not in (tmp_path / report.RECORDS).read_text()
    lines = [line for line in read(tmp_path / "metrics.jsonl") if line["phase"] == "attack/immunized"]
    assert [line["step"] for line in lines] == [1, 2]
    lines = [line for line in read(tmp_path / "metrics.jsonl") if line["phase"] == "attack/immunized/refusal"]
    assert [line["step"] for line in lines] == [0, 2]


def test_the_first_lines_tell_what_the_attack_costs_until_the_guards_have_fallen(capsys):
    stood = EPISODES["immunized"]
    stood = stood._replace(course=stood.course._replace(probes={"refusal": np.zeros((2, 2))}))
    fell = fall({"start model": EPISODES["start model"].course, "immunized": stood.course})
    report.costs("a title", fell, WHOLE)
    shown = capsys.readouterr().out
    lines = [line for line in shown.splitlines() if "│" in line]
    assert "until refusals fall below 0.5" in shown
    assert [cell.strip() for cell in lines[0].split("│")[1:-1]] == ["start model", "1.0", "5", "2.00e+09"]
    assert [cell.strip() for cell in lines[1].split("│")[1:-1]] == ["immunized", "> 2.0", "> 10", "> 4.00e+09"]
    assert [cell.strip() for cell in lines[2].split("│")[1:-1]] == ["ratio", "> 2.0", "> 2.0", "> 2.0"]
    told = fall({"one": EPISODES["start model"].course, "two": stood.course})
    told = json.loads(json.dumps(report.costs_to_json(told), allow_nan=False))
    assert told["costs"]["one"]["steps"]["value"] == 1.0
    assert told["costs"]["two"]["steps"]["value"] is None
    assert told["spent"]["two"]["flops"] == 4e9


def test_a_judge_that_never_applied_has_no_column_and_no_curve(tmp_path, capsys):
    episode = EPISODES["immunized"]
    nothing = np.full(2, np.nan)
    scores = episode.before._replace(judged={**episode.before.judged, "absent": nothing})
    course = episode.course._replace(probes={**episode.course.probes, "absent": np.stack([nothing, nothing])})
    with Metrics(tmp_path) as metrics:
        report.deliver(tmp_path, "a title", {"one": Episode(scores, scores, course)}, PROMPTS, metrics, WHOLE)
    shown = capsys.readouterr().out
    assert "other" in shown
    assert "absent" not in shown
    assert not any("absent" in line["phase"] for line in read(tmp_path / "metrics.jsonl"))


def test_results_hold_every_interval_and_are_json():
    results = json.loads(json.dumps(report.results(EPISODES), allow_nan=False))
    assert results["immunized"]["after"]["harmful_nll"]["value"] == 3.0
    assert (
        results["start model"]["before"]["refusal"]["low"] < 0.5 < results["start model"]["before"]["refusal"]["high"]
    )


def test_unfinished_answers_are_a_column_and_what_has_no_score_is_told(tmp_path, capsys):
    whole = np.zeros(2, bool)
    scores = EPISODES["immunized"].before._replace(unfinished=whole, unanswered=whole)
    thinking = scores._replace(
        judged={"refusal": np.array([0.0, np.nan]), "other": np.array([0.5, np.nan])},
        unfinished=np.array([True, True]),
        unanswered=np.array([False, True]),
    )
    course = EPISODES["immunized"].course
    report.table("a title", {"one": Episode(scores, scores, course)}, WHOLE)
    shown = capsys.readouterr()
    assert "unfinished" not in shown.out
    assert "one, before attack: the judge other gave 1 of 2 answers no score" in shown.err
    with Metrics(tmp_path) as metrics:
        report.deliver(tmp_path, "a title", {"one": Episode(scores, thinking, course)}, PROMPTS, metrics, WHOLE)
    shown = capsys.readouterr()
    assert "0 of 2" in shown.out
    assert "2 of 2" in shown.out
    told = " ".join(shown.err.split())
    assert "one, after 2 attack steps: 1 of 2 answers were still thinking" in told
    assert "model.template_args.enable_thinking=false" in told
    records = [json.loads(line) for line in (tmp_path / report.RECORDS).read_text().splitlines()]
    assert [each["unfinished"] for each in records if each["kind"] == "answer"] == [False, False, True, True]
    answers = report.results({"one": Episode(scores, thinking, course)})["one"]["after"]["answers"]
    assert answers == {"count": 2, "unfinished": 2, "unanswered": 1, "unscored": {"refusal": 0, "other": 0}}


def test_both_tables_tell_how_much_of_the_answers_the_attack_trained_on_where_some_were_cut(tmp_path, capsys):
    with Metrics(tmp_path) as metrics:
        report.deliver(tmp_path, "a title", EPISODES, PROMPTS, metrics, WHOLE)
        assert "answer tokens kept" not in capsys.readouterr().out
        cut = {"attack": Counts(2, 2, 0, 1000, 447), "held-out harmful": Counts(2, 1, 0, 1000, 999)}
        counts = {"start model": cut, "immunized": {"safe": Counts(2, 1, 0, 10, 5), **cut}}
        report.deliver(tmp_path, "a title", EPISODES, PROMPTS, metrics, counts)
    first, second = capsys.readouterr().out.split("before attack", 1)
    assert "answer tokens kept" in first
    assert first.count(" 44% ") == 2
    cells = [" ".join(line.split("│")[-2].split()) for line in f"│ start model │{second}".splitlines() if "│" in line]
    before, after = "held-out harmful 99%", "attack 44%, held-out harmful 99%"
    assert " ".join(cells).split() == f"{before} {after} safe 50%, {before} safe 50%, {after}".split()
