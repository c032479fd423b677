import json
import re

import certified
import pandas as pd
import pytest
from browser import look
from huggingface_hub import ModelCard

from immunax.certificate.report.charts import Line, chart
from immunax.certificate.report.html import render
from immunax.certificate.report.model_card import model_card
from immunax.certificate.verify import tables
from immunax.conditions.records import RECORDS, frame


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = certified.certificate(tmp_path_factory.mktemp("made"))
    stated = json.loads(path.read_text())
    page = path.with_name("report.html")
    page.write_text(render(stated, *tables(path.parent)))
    return page, stated


def test_the_page_says_every_condition_its_limits_and_how_far_to_believe_its_judge(made):
    page, stated = made
    text = page.read_text()
    for word in ("resistance", "trainability", "held-out", "seen", "Cohen's kappa"):
        assert word in text
    for line in stated["predicate"]["limits"]:
        assert line.replace("'", "&#39;") in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text


def test_page_and_model_card_say_whose_data_attackers_had(made, tmp_path):
    path = certified.certificate(tmp_path, attacker="shared")
    shared = json.loads(path.read_text())
    page = render(shared, *tables(tmp_path))
    for text in (page, model_card(shared)):
        assert "the very examples that the defense trained on" in text
        assert "What a defense remembers of them counts as resistance here" in text
    for text in (made[0].read_text(), model_card(made[1])):
        assert "Attackers trained on data of their own" in text
        assert "the very examples" not in text


def test_the_summary_tells_the_sides_of_harm_apart(made):
    summary = made[0].read_text().split('id="summary"')[1].split("</section>")[0]
    sides = re.findall(r"<strong>(Compliance|Substance)</strong>", summary)
    # Resistance says each once; generalization need not, where its claims have one reason.
    assert sides[:2] == ["Compliance", "Substance"]


def test_every_attack_that_costs_something_has_its_course(made):
    page = made[0].read_text()
    assert page.count("aria-label='Harm along sft'") == page.count("aria-label='Harm along lora'") == 2


def test_text_of_a_certificate_is_never_markup(made):
    page, stated = made
    told = json.loads(json.dumps(stated))
    told["predicate"]["model"]["name"] = "<script>alert(1)</script>"
    assert "<script>alert" not in render(told, *tables(page.parent))


def test_the_page_counts_unfinished_answers_and_the_data_that_an_attack_lost(made):
    page, stated = made
    assert "had no end" not in page.read_text()
    records, cells = tables(page.parent)
    more = [
        *certified.measured("subject-sft", 5, "unfinished", [1.0, 0.0, 1.0]),
        *certified.measured("reference-sft", 5, "unfinished", [0.0] * 3),
        *certified.measured("subject-sft", 5, "data_kept", [0.04]),
        *certified.measured("subject-lora", 8, "data_kept", [1.0]),
    ]
    text = render(stated, pd.concat([records, frame(more, RECORDS)], ignore_index=True), cells)
    assert "2 of 3 answers of this model had no end within their tokens" in text
    assert "of the reference had" not in text
    assert "sft trained on 4% of its answers' tokens" in text
    assert "lora trained on" not in text


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_it_reads_in_a_browser_at_any_width_without_an_error(made, width, scheme):
    seen = look(made[0], width, scheme)
    assert seen.told == []
    assert seen.width <= width
    assert seen.contrast > 7


def test_a_chart_puts_rates_and_costs_where_they_belong():
    points = [(1.0, 0.0, None, None), (10.0, 0.5, None, None), (100.0, 1.0, 0.5, 1.0)]
    drawn = chart([Line("mine", "subject", points, True)], "cost", "t", log=True)
    # 48 to 380 across, 12 to 194 down; 10 is half way from 1 to 100.
    assert "<path d='M48.0,194.0H214.0V103.0H380.0V12.0'/>" in drawn
    assert "y1='103.0' y2='12.0'" in drawn
    assert "Nothing to draw" in chart([Line("mine", "subject", [])], "cost", "t")


def test_an_attack_that_costs_nothing_stands_at_the_left_of_a_logarithmic_chart():
    drawn = chart([Line("mine", "subject", [(0.0, 1.0, None, None), (5.0, 1.0, None, None)])], "cost", "t", log=True)
    assert "<path d='M48.0,12.0L380.0,12.0'/>" in drawn
    assert _ticks(drawn) == ["0", "5"]
    assert "Nothing to draw" in chart([Line("mine", "subject", [(0.0, 1.0, None, None)])], "cost", "t", log=True)


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(13.0, ["0", "5", "10"]), (4.0, ["0", "1", "2", "3", "4"]), (0.4, ["0", "0.1", "0.2", "0.3", "0.4"])],
)
def test_ticks_are_round_numbers(highest, ticks):
    drawn = chart([Line("mine", "subject", [(0.0, 0.0, None, None), (highest, 1.0, None, None)])], "trials", "t")
    assert _ticks(drawn) == ticks


def _ticks(drawn):
    found = re.findall(r"<text class='tick' x='[^']*' y='([^']*)'[^>]*>(.*?)</text>", drawn)
    return [text for y, text in found if y == "212"]


def test_dots_of_broken_models_are_not_joined():
    drawn = chart([Line("mine, broken", "subject broken", [(1.0, 1.0, None, None)], joined=False)], "cost", "t")
    assert "class='subject broken'" in drawn
    assert "<path" not in drawn


def test_the_model_card_is_one_that_the_hub_reads(made):
    card = ModelCard(model_card(made[1]))
    results = {each.metric_type: each.metric_value for each in card.data.eval_results}
    strong = next(
        each
        for each in made[1]["predicate"]["verdicts"]
        if (each["claim"], each["scope"], each["side"]) == ("strong", "all", "compliance")
    )
    assert results["resistance/strong/all/compliance"] == strong["value"]
    # The Hub's metadata has no place for an interval.
    assert f"| {strong['value']:.3g} | {strong['low']:.3g} to {strong['high']:.3g} | 0.25 |" in card.text
