"""Folders of runs, as a stranger's machine might have left them, for the table of many."""

import contextlib
import io
import json
from pathlib import Path

from fuzz import mutations
from fuzz.certificates import hash_of
from fuzz.parser import Parser
from matplotlib import font_manager
from run_folders import manifest, sweep, write_grid

from immunax.certificate.statement import FILE as CERTIFICATE
from immunax.results import main
from immunax.runs.sweeps import jobs_of
from immunax.runtime import failure
from immunax.runtime import manifest as manifests
from immunax.runtime import metrics as logged
from immunax.runtime.errors import UserError
from immunax.runtime.exits import EXIT_USER

_DONE, _FAILED = "sweep/defense=tar+seed=0", "sweep/defense=tar+seed=1"
_QUESTIONS = (
    (),
    ("table=columns", "limit=5000"),
    ("select=all", "out=table.md"),
    ("out=table.csv",),
    ("by=defense", "metric=after.refusal"),
    ("by=seed", "columns=defense", "metric=after.refusal"),
    ("where=seed < 2 and status = 'done'", "sort=-seed"),
    ("table=curves", "by=phase,defense", "metric=loss"),
    ("plot=lines", "x=step", "y=loss", "out=figure.svg"),
    ("plot=bars", "x=defense", "y=after.refusal", "hue=seed", "out=figure.png"),
)


def _make(folder: Path) -> None:
    font_manager.findfont("sans")  # once, and not while an input is watched
    sweep(folder / "sweep")
    verdict = {"condition": "resistance", "claim": "strong", "scope": "all", "side": "compliance", "outcome": "fails"}
    numbers = {"value": 0.5, "low": 0.4, "high": 0.6, "threshold": 0.25}
    said = {"model": {"name": "m"}, "suite": {"name": "smoke"}, "verdicts": [{**verdict, **numbers}]}
    (folder / _DONE / CERTIFICATE).write_text(json.dumps({"predicate": said}))
    (folder / _DONE / manifests.FILE).write_text(json.dumps(manifest()))
    (folder / _FAILED / ".hydra").mkdir()
    (folder / _FAILED / ".hydra" / "overrides.yaml").write_text("- +defense=tar\n- seed=1\n- a.b=[1,2]\n")
    write_grid(folder / "sweep", ["+defense=tar,lat", "seed=range(2)"])


def _ask(folder: Path) -> None:
    """One of the questions, which the files choose; each line that is printed or written is one line."""
    jobs_of(folder / "sweep")
    chosen = _QUESTIONS[
        hash_of([each.read_bytes().hex() for each in sorted(folder.rglob("*.json*"))]) % len(_QUESTIONS)
    ]
    out = io.StringIO()
    words = [word.replace("out=", f"out={folder}/") for word in chosen]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main([str(folder / "sweep"), *words])
    text = out.getvalue()
    for written in folder.glob("table.md"):
        text += written.read_text()
        written.unlink()
    assert all(each.isprintable() for each in text.split("\n")), "a line of a stranger's"
    if status:
        assert status == EXIT_USER
        raise UserError(text)


PARSERS = (
    Parser(
        "runs",
        _make,
        _ask,
        {
            f"{_DONE}/{manifests.FILE}": mutations.document,
            f"{_DONE}/{logged.FILE}": mutations.lines,
            f"{_DONE}/{CERTIFICATE}": mutations.document,
            f"{_FAILED}/{failure.FILE}": mutations.document,
            f"{_FAILED}/.hydra/overrides.yaml": mutations.raw,
            "sweep/multirun.yaml": mutations.raw,
        },
    ),
)
