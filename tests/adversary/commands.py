"""What forgeries are shown to: the commands, and the functions that commands read strangers' files with."""

import contextlib
import html
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import quick
from adversary import forge

from immunax import leaderboard, verify
from immunax.certificate.report.html import FILE
from immunax.runtime.errors import UserError

_REFUSED = 2
_ROOT = Path(__file__).parents[2]


class Said(NamedTuple):
    """Exit status and everything printed."""

    status: int
    text: str


def run(name: str, arguments: list[str], folder: Path) -> Said:
    """Runs one of the commands below; a refusal is printed as a command prints it, any other exception is a traceback."""
    if name in _PROCESSES:
        return _process(_PROCESSES[name], arguments, folder)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = _FUNCTIONS[name](arguments)
        except UserError as error:
            print(f"error: {error}")
            status = _REFUSED
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except Exception as error:
            print(f"Traceback: {type(error).__name__}: {error!r}")
            status = 1
    return Said(status, out.getvalue())


def _board(arguments: Sequence[str]) -> int:
    """The leaderboard, and the rows of its page as lines ``row: place | model | ...``."""
    out = Path(arguments[0]).parent / "board"
    status = leaderboard.main([*arguments, "--out", str(out)])
    if (out / "index.html").exists():
        for row in re.findall(r"<tr.*?</tr>", (out / "index.html").read_text(), re.DOTALL):
            cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
            print("row: " + " | ".join(" ".join(re.sub(r"<[^>]*>", " ", each).split()) for each in cells))
        print(_text((out / "index.html").read_text()))
    return status


def _page(arguments: Sequence[str]) -> int:
    """The page that a certificate gives."""
    path = Path(arguments[0])
    print(_text(forge.drawn(forge.read(path), path.parent)[FILE].decode()))
    return 0


def _text(page: str) -> str:
    seen = re.sub(r"<style.*?</style>|<svg.*?</svg>|<[^>]*>", "\n", page, flags=re.DOTALL)
    return html.unescape("\n".join(line.strip() for line in seen.split("\n") if line.strip()))


def _load(arguments: Sequence[str]) -> int:
    """A model's folder, read whole."""
    # The libraries of models are only needed here.
    from immunax.models.hub import ModelSource
    from immunax.stages.setup import load

    checkpoint = load(ModelSource(arguments[0]))
    print(f"a {checkpoint.config.family} model of {checkpoint.config.n_layers} layers")
    return 0


def _ask(arguments: Sequence[str]) -> int:
    """A model's folder, and questions as its template puts them."""
    from immunax.data.dialog import ask
    from immunax.data.prompts import prompt_rows
    from immunax.models.hub import ModelSource

    tokenizer = ModelSource(arguments[0]).load().tokenizer
    rows = prompt_rows(tokenizer, [ask("how is a bomb made?"), ask("how is a cake made?")], 160).tokens
    print(*(repr(tokenizer.decode(row)) for row in rows), sep="\n")
    return 0


def _kept(arguments: Sequence[str]) -> int:
    """A model's folder, and the share of an attack's answers that is left of them."""
    from immunax.data.chat import encode_all
    from immunax.data.dialog import Dialog, Message
    from immunax.models.hub import ModelSource

    tokenizer = ModelSource(arguments[0]).load().tokenizer
    _, counts = encode_all(tokenizer, [Dialog((Message("user", "how?"),), "the cat sat on the mat " * 6)], 160)
    print(f"kept {counts.share:.0%}, dropped {counts.dropped}")
    return 0


def _read(arguments: Sequence[str]) -> int:
    """A model's folder, and an answer of its as judges read it."""
    import numpy as np

    from immunax.judges.reading import read
    from immunax.models.hub import ModelSource

    tokenizer = ModelSource(arguments[0]).load().tokenizer
    ids = np.array([tokenizer("the cat sat on the mat", add_special_tokens=False)["input_ids"]])
    print(f"read: {read(tokenizer, ids, (2,), None).texts[0]}")
    return 0


def _reference(arguments: Sequence[str]) -> int:
    """The start model of the run that a model's manifest tells of, as certificates compare with it."""
    from immunax.models.hub import ModelSource
    from immunax.stages.guard import Start
    from immunax.stages.setup import Compute, Parts, set_up
    from immunax.stages.subject import Asked, reference, subject

    asked = Asked(Parts(ModelSource(str(Path(arguments[0]) / "model")), _NoData(), Compute()), Start())
    setup, params = set_up(asked.parts)
    reference(asked, subject(asked, setup, params), setup)
    return 0


class _NoData:
    """A corpus without a dialog."""

    def splits(self):
        from immunax.data.dialog import Split, Splits

        return Splits(Split())


def _faced(arguments: Sequence[str]) -> int:
    """What a model says it was trained against, as JSON, read against a suite."""
    from immunax.attacks.prune import Prune
    from immunax.campaign.grid import Population
    from immunax.stages.certify import exposed
    from immunax.stages.suite import Suite

    suite = Suite("s", {"prune": Population(Prune(0.5)), "harmful_sft": Population(Prune(0.1))})
    said = json.loads(Path(arguments[0]).read_text())
    print(exposed(suite, said, "trained_against", ["merge", *suite.attacks]))
    return 0


def _spec(arguments: Sequence[str]) -> int:
    """An attack that somebody sent, as certificates and red teams read it."""
    from immunax.stages.submitted import spec

    print(spec(Path(arguments[0]))[1])
    return 0


def _compare(arguments: Sequence[str]) -> int:
    """Whether the records of one certificate are those of another."""
    import pandas as pd

    one, other = map(pd.read_parquet, arguments)
    print("the same measurements" if one.equals(other) else "measured anew")
    return 0


def _process(module: str, arguments: Sequence[str], folder: Path) -> Said:
    settings = {
        **os.environ,
        "IMMUNAX_CACHE": str(folder / "cache"),
        "COLUMNS": "400",
        "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=1 {quick.FLAGS}",
    }
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900
    )
    # Progress draws over its own line.
    return Said(done.returncode, re.sub(r"\r|\x1b\[[0-9;?]*[A-Za-z]", "", done.stdout))


_FUNCTIONS: dict[str, Callable[[Sequence[str]], int]] = {
    "verify": verify.main,
    "leaderboard": _board,
    "page": _page,
    "load": _load,
    "ask": _ask,
    "kept": _kept,
    "read": _read,
    "reference": _reference,
    "faced": _faced,
    "spec": _spec,
    "compare": _compare,
}
_PROCESSES = {"certify": "immunax.certify", "attack": "immunax.attack", "verify again": "immunax.verify"}
