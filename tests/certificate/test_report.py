import json
import shutil

import certified
import pytest
from huggingface_hub import ModelCard

from immunax.certificate.report.charts import Line, chart
from immunax.certificate.report.html import render
from immunax.certificate.report.model_card import model_card
from immunax.certificate.verify import tables


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = certified.certificate(tmp_path_factory.mktemp("made"))
    stated = json.loads(path.read_text())
    page = path.with_name("report.html")
    page.write_text(render(stated, *tables(path.parent), "Unsigned."))
    return page, stated


def test_the_page_says_every_condition_its_limits_and_how_far_to_believe_its_judge(made):
    page, stated = made
    text = page.read_text()
    for word in ("resistance", "trainability", "held-out", "seen", "Unsigned.", "Cohen's kappa"):
        assert word in text
    for line in stated["predicate"]["limits"]:
        assert line.replace("'", "&#39;") in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text


def test_text_of_a_certificate_is_never_markup(made):
    page, stated = made
    told = json.loads(json.dumps(stated))
    told["predicate"]["model"]["name"] = "<script>alert(1)</script>"
    assert "<script>alert" not in render(told, *tables(page.parent), "")


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (360, "dark")])
def test_it_reads_in_a_browser_at_any_width_without_an_error(made, width, scheme):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        told = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
        page.goto(made[0].as_uri())
        assert told == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
        assert _contrast(ink, paper) > 7
        opened.close()


def _contrast(one, other):
    """WCAG 2.2, relative luminance."""

    def luminance(colour):
        parts = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_chart_puts_rates_and_costs_where_they_belong():
    drawn = chart(
        [Line("mine", "subject", [(1.0, 0.0, None, None), (100.0, 1.0, 0.5, 1.0)], True)], "cost", "t", log=True
    )
    # 46 to 448 across, 12 to 210 down.
    assert "<path d='M46.0,210.0H448.0V12.0'/>" in drawn
    assert "y1='111.0' y2='12.0'" in drawn
    assert "Nothing to draw" in chart([Line("mine", "subject", [])], "cost", "t")


def test_the_model_card_is_one_that_the_hub_reads(made):
    card = ModelCard(model_card(made[1]))
    assert card.validate is not None
    results = {each.metric_type: each.metric_value for each in card.data.eval_results}
    strong = next(
        each
        for each in made[1]["predicate"]["verdicts"]
        if (each["claim"], each["scope"], each["side"]) == ("strong", "all", "compliance")
    )
    assert results["resistance/strong/all/compliance"] == strong["value"]
