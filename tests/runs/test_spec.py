import pytest

from immunax.runs.options import Options
from immunax.runs.spec import read_spec
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError
from immunax.runtime.experiments import GROUP

FIGURE = """
title: A figure
panels:
  - {title: one, plot: lines, x: step, y: loss, hue: phase, limits: [0, 1], y_label: nats}
tables:
  - {title: two, by: [defense, "a,b"], metric: after.refusal, about: both}
made: {runs: {kind: "lower(defense)"}}
"""


def written(tmp_path, text):
    path = tmp_path / "figure.yaml"
    path.write_text(text)
    return path


def test_a_figure_is_panels_and_tables_of_questions(tmp_path):
    spec = read_spec(written(tmp_path, FIGURE))
    assert spec.title == "A figure"
    assert spec.panels[0].options == Options(plot="lines", x="step", y="loss", hue="phase")
    assert (spec.panels[0].limits, spec.panels[0].y_label) == ((0.0, 1.0), "nats")
    assert spec.tables[0].options == Options(by=("defense", "a,b"), metric=("after.refusal",), about="both")
    assert spec.made == {"runs": {"kind": "lower(defense)"}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("title: [", "cannot be read as YAML"),
        ("3", "expected the keys title, made"),
        ("titel: x", "unknown key 'titel'. Did you mean 'title'?"),
        ("title: x", "has neither panels nor tables"),
        ("panels: 3", "panels: expected a list of questions"),
        ("panels: [{plot: lines, x: step}]", r"panels[0]: plot=lines: give x=COLUMN and y=COLUMN too"),
        ("tables: [{by: a, metrik: b}]", r"tables[0]: metrik: no such option. Did you mean 'metric'?"),
        ("panels: [{by: a}]", "panels[0]: give plot=lines, points, bars or matrix"),
        ("tables: [{plot: lines, x: step, y: loss}]", "tables[0]: plot= is for panels"),
        ("tables: [{by: a, out: x.md}]", "tables[0]: out: is said on the command line"),
        ("panels: [{plot: lines, x: step, y: loss, limits: 3}]", "panels[0]: limits=3: expected two numbers"),
        ("panels: [{plot: lines, x: step, y: loss, limits: [0, a]}]", "expected two numbers, as [0, 1]"),
        ("panels: [{plot: lines, x: step, y: loss, fit: line}]", "panels[0]: fit='line': expected one of power"),
        ("across: 0\ntables: [{by: a}]", "across=0: expected how many panels"),
        ("made: {rows: {a: b}}\ntables: [{by: a}]", "made: expected columns for runs, curves, cells"),
    ],
)
def test_what_is_no_figure_is_one_line_that_names_the_file(tmp_path, text, line):
    path = written(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_spec(path)
    assert str(path) in str(error.value)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_every_figure_of_the_configuration_can_be_read():
    found = sorted(configuration_folder().glob(f"{GROUP}/*/figure*.yaml"))
    assert found
    assert all(read_spec(path).panels for path in found)
