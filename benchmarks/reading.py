"""Host memory and time to read a large file of JSON lines, beside its size.

    uv run python benchmarks/reading.py [--gigabytes 1]

The file is made on the fly: rows of about a thousand characters, one in a hundred of the kind that a filter keeps, with a
column of mixed types that nothing asks for. Each way of reading runs in a process of its own. Its memory is the peak of the
resident set less what the process had before, the libraries loaded.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loading import forget_peak, resident

WAYS = {
    "one row in a hundred": {"where": {"kind": "rare"}},
    "the first 1,000 rows": {"limit": 1000},
    "every row": {},
}


def write(path: Path, size: int) -> int:
    """Fills a file with rows up to a size in bytes, and returns how many."""
    number = written = 0
    with path.open("w") as file:
        while written < size:
            row = {
                "id": number if number % 2 else str(number),
                "prompt": f"question {number} " + "word " * 40,
                "response": f"answer {number} " + "word " * 140,
                "kind": "common" if number % 100 else "rare",
            }
            written += file.write(json.dumps(row) + "\n")
            number += 1
    return number


def measure(path: Path, way: str) -> None:
    """Prints rows kept, seconds, and bytes at the peak and after."""
    from immunax.data.sources import Source

    source = Source(path.name, {"train": 1.0}, **WAYS[way])
    before, began = resident(peak=False), time.perf_counter()
    forget_peak()
    dialogs = source.dialogs(str(path.parent))
    seconds = time.perf_counter() - began
    print(json.dumps([len(dialogs), seconds, resident(peak=True) - before, resident(peak=False) - before]))


def main() -> None:
    """Measures every way of reading."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--measure", nargs=2)
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.measure[0]), options.measure[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.jsonl")
        print(f"{write(path, int(options.gigabytes * 1e9))} rows, {path.stat().st_size / 1e9:.2f} GB")
        for way in WAYS:
            command = [sys.executable, __file__, "--measure", str(path), way]
            kept, seconds, peak, after = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            print(f"| {way} | {kept:,} | {seconds:.0f} | {peak / 1e6:.0f} | {after / 1e6:.0f} |")


if __name__ == "__main__":
    main()
