"""The notebook that tells the organism's story: what is committed of it, and that the story still holds."""

import re
import tempfile
from pathlib import Path

import pytest
import tour
from nbclient.exceptions import CellExecutionError


def code():
    return [cell for cell in tour.read().cells if cell.cell_type == "code"]


def test_the_tour_is_committed_as_it_was_executed():
    assert [cell.execution_count for cell in code()] == list(range(1, len(code()) + 1))
    outputs = [output for cell in code() for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert any("refused:" in output.get("text", "") for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]


def test_the_tour_holds_no_paths_of_a_machine_and_little_of_its_figures():
    raw = tour.PATH.read_text()
    assert len(raw) < 200_000
    pictures = re.compile(r'"image/png": "[^"]*"')
    assert not re.findall(r"/(?:home|root|tmp|usr|work|opt|Users)/|\.venv|site-packages", pictures.sub("", raw))
    assert tempfile.gettempdir() not in raw


def test_the_tour_asserts_that_the_guard_falls_and_that_immunization_costs_steps():
    asserted = "\n".join(cell.source.partition("\nassert ")[2] for cell in code())
    for said in ("refuses before", "has fallen after", "told again", "costs the attacker steps"):
        assert said in asserted


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where the organism is kept from one test to the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def kernel(cache, monkeypatch):
    """The kernel is a process of its own, with one device as a reader has it."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("IMMUNAX_CACHE", str(cache))


@pytest.mark.slow
@pytest.mark.usefixtures("kernel")
def test_the_tour_runs_and_its_story_holds(tmp_path: Path):
    book = tour.executed(tour.read(), tmp_path)
    assert "ratio" in book.cells[-2].outputs[0].text


@pytest.mark.slow
@pytest.mark.usefixtures("kernel")
def test_a_story_that_does_not_hold_is_an_error(tmp_path: Path):
    book = tour.read()
    [setting] = [cell for cell in book.cells if cell.source.startswith("first = red_team(")]
    setting.source = setting.source.replace("guarded, tokenizer", "loaded, tokenizer")
    book.cells = book.cells[: book.cells.index(setting) + 1]
    with pytest.raises(CellExecutionError, match="the guard refuses before"):
        tour.executed(book, tmp_path)
