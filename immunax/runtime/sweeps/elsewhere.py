"""Runs of a sweep that have ended under another name: a line that varies one key more, or one fewer, names its runs otherwise."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from immunax.runtime import atomic, console, mirror
from immunax.runtime.sweeps import outcome
from immunax.runtime.sweeps.names import ELSEWHERE
from immunax.runtime.sweeps.runs import Wanted
from immunax.runtime.together import agreed


def placed(folder: Path, wanted: Sequence[Wanted]) -> list[Wanted]:
    """The runs of a line, those that have ended in another folder of the sweep's there; said in one line.

    Runs of one line that differ in what is :data:`~immunax.runtime.sweeps.outcome.FREE` alone, as in their mesh, are all asked
    for: of them none is taken for another one.

    Args:
      folder: of the sweep.
      wanted: all runs of the line.
    """
    there = agreed(lambda: _note(folder, wanted))
    for name, other in list(there.items())[:1]:
        console.note(f"{len(there)} of {len(wanted)} runs have other names here, such as {name}, which is {other}")
    return [run._replace(folder=folder / there[run.folder.name]) if run.folder.name in there else run for run in wanted]


def _note(folder: Path, wanted: Sequence[Wanted]) -> dict[str, str]:
    outcome.fetch(folder)
    there = _found(folder, wanted)
    if there or mirror.fetch(folder / ELSEWHERE).exists():
        with atomic.file(folder / ELSEWHERE) as temp:
            temp.write_text(json.dumps(there, indent=2) + "\n")
    return there


def _found(folder: Path, wanted: Sequence[Wanted]) -> dict[str, str]:
    times = Counter(run.asked[:2] for run in set(wanted))
    own = [run for run in wanted if run.folder.parent == folder and times[run.asked[:2]] == 1]
    lacking = [run for run in own if outcome.known(run.folder, run.asked) is None]
    if not lacking:
        return {}
    names: dict[tuple[str, str], str] = {}
    for each in sorted(folder.iterdir() if folder.is_dir() else ()):
        for content in outcome.contents(each):
            names.setdefault(content, each.name)
    return {run.folder.name: names[run.asked[:2]] for run in lacking if run.asked[:2] in names}
