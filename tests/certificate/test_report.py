import base64
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import certified
import pandas as pd
import pytest
import yaml
from browser import look
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from scipy import stats

from immunax.certificate.report.charts import Line, chart
from immunax.certificate.report.html import render
from immunax.certificate.report.model_card import model_card
from immunax.certificate.verify import tables
from immunax.conditions.courses import course
from immunax.conditions.points import points
from immunax.conditions.policy import Utility
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


HOSTILE = (
    "sft</title></style></svg><script>alert(1)</script>' x=\" onload=x \u202epassed\u2066 {{ 7 * 7 }}\n\n---\n\n# holds\n"
    "| a | b |\n1. x\n- `y` ](javascript:alert(1)) ![x](//x) <img src=x onerror=x> "
    "&#60;b&#62; www.x.org https://x.org x@x.org $$x$$" + "\x1b[2J" + "very long " * 500
)
_KEYS = (
    "name",
    "defense",
    "reason",
    "statistic",
    "skipped",
    "made_from",
    "what",
    "standing",
    "limits",
    "versions",
    "source",
)


def hostile(node):
    """A statement whose every free text is hostile; so is the name of a family of attacks, which no check lets pass."""
    if isinstance(node, dict):
        return {
            HOSTILE if key == "sft" else key: _spoilt(each) if key in _KEYS else hostile(each)
            for key, each in node.items()
        }
    if isinstance(node, list):
        return [hostile(each) for each in node]
    return HOSTILE if node == "sft" else node


def _spoilt(value):
    if isinstance(value, dict):
        return {HOSTILE: HOSTILE}
    return list(map(_spoilt, value)) if isinstance(value, list) else value and HOSTILE + value


class Shape(HTMLParser):
    """The elements of a page, with the names of their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag):
        self.found.append(tag)


def test_no_text_of_a_certificate_changes_the_shape_of_its_page(made):
    page, stated = made
    records, cells = tables(page.parent)
    told = render(hostile(stated), records, cells.replace({"family": {"sft": HOSTILE}}))
    assert Shape(told).found == Shape(page.read_text()).found
    assert all(line.isprintable() for line in told.split("\n"))
    assert "onload" in told
    assert all(len(each) < 30_000 for each in told.split("\n"))


def test_a_browser_is_told_to_run_and_fetch_nothing(made):
    text = made[0].read_text()
    [policy] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    [style] = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = dict(each.strip().split(" ", 1) for each in unescape(policy).split(";"))
    nothing = dict.fromkeys(("default-src", "base-uri", "form-action"), "'none'")
    assert allowed == {**nothing, "style-src": f"'sha256-{digest}'", "img-src": "data:"}
    assert text.index("Content-Security-Policy") < text.index("<title>") < text.index("<style>")
    names = {name for tag in Shape(text).found if isinstance(tag, tuple) for name in tag[1]}
    assert not any(name == "style" or name.startswith("on") for name in names)


def test_no_text_of_a_certificate_changes_the_shape_of_its_card(made):
    _, stated = made
    cards = [model_card(each) for each in (stated, hostile(stated))]
    heads, bodies = zip(
        *(re.fullmatch(r"---\n(.*?)\n---\n(.*)", card, re.DOTALL).groups() for card in cards), strict=True
    )
    reader = MarkdownIt("commonmark").enable("table")
    shapes = [[(token.type, len(token.children or ())) for token in reader.parse(body)] for body in bodies]
    assert [type for type, _ in shapes[0]] == [type for type, _ in shapes[1]]
    inside = {child.type for token in reader.parse(bodies[1]) for child in token.children or ()}
    # What is escaped comes as pieces of text; digests are code.
    assert inside <= {"text", "text_special", "code_inline"}
    assert not re.search(r"(?i)(?<!\\)(www\.|://)", bodies[1])
    names = [yaml.safe_load(head)["model-index"][0]["name"] for head in heads]
    assert names[0] == "small"
    assert names[1].startswith("sft</title>")
    assert len(names[1]) <= 2000
    assert len(yaml.safe_load(heads[1])["model-index"][0]["results"]) == len(
        yaml.safe_load(heads[0])["model-index"][0]["results"]
    )


@pytest.mark.parametrize(("confidence", "told"), [(0.5, "50%"), (0.999, "99.9%")])
def test_page_and_card_tell_the_numbers_in_force(tmp_path, confidence, told):
    harm = {side: replace(each, threshold=0.125) for side, each in certified.POLICY.harm.items()}
    policy = replace(certified.POLICY, confidence=confidence, harm=harm, utility=Utility("retain_nll", 0.885))
    path = certified.certificate(tmp_path, policy=policy)
    stated = json.loads(path.read_bytes())
    page, card = render(stated, *tables(tmp_path)), model_card(stated)
    # What judges are measured at is theirs, and stands with their cards.
    before = page.split('id="judges"')[0]
    for text in (before, card):
        assert "95%" not in text
        assert "100% confidence" not in text
        assert f"{told} confidence" in text
        assert "88.5%" in text
    assert f"{told} interval" in before
    assert f"{told} interval" in card
    assert before.count("at most 12.5% of the answers") == 2
    # The bars of single points are of that confidence too.
    first = course(*tables(tmp_path), *_points(tmp_path, policy), policy.harm["compliance"], confidence)[-1]
    assert (first["low"], first["high"]) == pytest.approx(stats.binomtest(1, 40).proportion_ci(confidence, "exact"))


def _points(folder, policy):
    table = points(*tables(folder), policy, "test")
    return [table[(table["side"] == "compliance") & (table["cell"] == "subject-sft")]]


def test_outcomes_and_columns_that_are_new_are_shown_without_a_colour_of_others(made):
    page, stated = made
    told = json.loads(json.dumps(stated))
    told["predicate"]["verdicts"][0]["outcome"] = "unmeasured"
    records, cells = tables(page.parent)
    kept = frame(certified.measured("subject-sft", 5, "data_kept", [0.5]), RECORDS)
    other = cells.assign(cell=cells["cell"] + "-own", template="own")
    answers = pd.concat([records, kept, records.assign(cell=records["cell"] + "-own")], ignore_index=True)
    text = render(told, answers, pd.concat([cells, other], ignore_index=True))
    assert '<li class="other"><strong>Compliance</strong> <span class="outcome">unmeasured</span>' in text
    assert '<td class="w">neutral</td>' in text
    assert '<th scope="col" class="n">data kept</th>' in text
    assert re.search(r'<th scope="row">sft</th>.*<td class="n">50%</td>', text, re.DOTALL)
    assert "<figcaption>sft, neutral template</figcaption>" in text


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
