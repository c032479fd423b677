"""What a run logged that another one logs too: how fast it was, it alone was."""

import json
from pathlib import Path

from immunax.runtime.metrics import read


def is_computed(phase: str) -> bool:
    """Whether a phase of ``metrics.jsonl`` is of what was computed, and not of the time that it took."""
    return not phase.endswith("/rate") and not phase.startswith("performance/")


def computed(path: Path) -> list[dict]:
    """The records of a ``metrics.jsonl`` that are of what was computed."""
    return [record for record in read(path) if is_computed(record["phase"])]


def computed_lines(raw: bytes) -> bytes:
    """The same lines of a file as they stand."""
    lines = raw.splitlines(keepends=True)
    return b"".join(line for line in lines if is_computed(json.loads(line)["phase"]))
