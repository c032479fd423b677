"""One run of ``immunax.compile`` for the records of this folder and of ``experiments/scaling``."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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
