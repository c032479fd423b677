"""One run of ``immunax.compile`` for the records of this folder and of ``experiments/scaling``."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from immunax.runtime.atomic import file


def compiled(name: str, arguments: Sequence[str]) -> dict[str, Any] | None:
    """Compiles a case in a process of its own, and says in a line what came of it.

    Args:
      name: of the case.
      arguments: of the command.

    Returns:
      The numbers of its ``compile.json``, with the arguments and the seconds that it took; None where it left none.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "-m", "immunax.compile", *arguments, f"outputs={outputs}", "run=fit"]
        done = subprocess.run(command, capture_output=True, text=True)
        record = Path(outputs, "fit", "compile.json")
        if not record.exists():
            print(f"{name}: exit status {done.returncode}\n{done.stderr}", file=sys.stderr)
            return None
        numbers = json.loads(record.read_text())
    seconds = round(time.monotonic() - began)
    print(f"{name}: {'fits' if numbers['fits'] else numbers['refusal']}, {seconds} s", flush=True)
    return {"arguments": arguments, "compile_seconds": seconds, **numbers}


def compile_missing(record: Path, cases: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Compiles the cases that a record lacks, one after the other, and adds each as soon as it is there.

    Args:
      record: a JSON file, made where there is none.
      cases: arguments by name.

    Returns:
      What the record holds then, by name.
    """
    results = json.loads(record.read_text()) if record.exists() else {}
    for name, arguments in cases.items():
        if name not in results and (numbers := compiled(name, arguments)) is not None:
            results[name] = numbers
            with file(record) as temp:
                temp.write_text(json.dumps(results, indent=1) + "\n")
    return results
