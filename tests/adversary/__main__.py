"""``python -m tests.adversary [--only NAME]``: every attempt of a cheat, and how it was told.

Prints a table; the exit status is 1 where one was not caught. Those that train a model take minutes; ``--fast`` leaves them out.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from adversary.attempt import run
from adversary.registry import ATTEMPTS
from adversary.shared import shared


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.adversary", description=__doc__)
    parser.add_argument("--only", help="the attempt of this name, or those of one finding, such as B3")
    parser.add_argument("--fast", action="store_true", help="leave out those that train a model")
    options = parser.parse_args()
    print("| kind | attempt | from | run | status | told | caught |")
    print(f"|{' --- |' * 7}")
    caught, missed = 0, []
    for kind, attempts in ATTEMPTS.items():
        for attempt in attempts:
            if (options.fast and attempt.slow) or (
                options.only and options.only not in (attempt.name, attempt.finding)
            ):
                continue
            with tempfile.TemporaryDirectory() as place, shared():
                found = run(attempt, Path(place))
            told = found.told.replace(place, "FOLDER").replace("|", "\\|")[:160]
            word = "yes" if found.caught else "NO"
            row = kind, attempt.name, attempt.finding, found.ran, found.status, told, word
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            caught += found.caught
            missed += [] if found.caught else [attempt.name]
    print(f"\n{caught} caught of {caught + len(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
