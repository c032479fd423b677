"""``python -m immunax.leaderboard CERTIFICATES... --out FOLDER``: rank certified models on a static page.

Exit statuses: 0 where every certificate is on the page; 1 where some are left out, with one line each; 2 where none is, or for
a mistake in the command.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from immunax.certificate.ranking import board, option, page
from immunax.certificate.signing import public_key
from immunax.certificate.statement import FILE
from immunax.runtime import atomic
from immunax.runtime.errors import UserError, refused
from immunax.runtime.escaped import escape_logs, say
from immunax.runtime.exits import EXIT_USER
from immunax.runtime.untrusted.files import below

EXIT_SOME = 1

_RULES = {
    "attack data": ("own|shared", "own|shared"),
    "suite": ("NAME@DIGEST", ".+@[0-9a-f]{16}"),
    "policy": ("DIGEST", "[0-9a-f]{16}"),
    "reference": ("SHA256", "[0-9a-f]{64}"),
}
"""What an organiser may fix, of :data:`~immunax.certificate.ranking.RULES`: how it is written, and a pattern of that."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes ``index.html``, and gives the exit status.

    Args:
      arguments: of the command line; the process's own by default.
    """
    parser = argparse.ArgumentParser(prog="python -m immunax.leaderboard", description="Rank certified models.")
    parser.add_argument("certificates", type=Path, nargs="+", help=f"{FILE} files, or folders that hold some")
    parser.add_argument("--key", type=Path, help="PEM file of the public key that should have signed them all")
    for rule, (form, _) in _RULES.items():
        parser.add_argument(
            option(rule), dest=rule, metavar=form, help="as verify prints it; by default that of most models"
        )
    parser.add_argument("--out", type=Path, default=Path("leaderboard"), help="folder of the page")
    options = parser.parse_args(arguments)
    escape_logs()
    try:
        return _rank(options)
    except (UserError, OSError) as error:
        say(f"error: {refused(error) if isinstance(error, OSError) else error}", error=True)
        return EXIT_USER


def _rank(options: argparse.Namespace) -> int:
    fixed = {}
    for rule, (form, pattern) in _RULES.items():
        value = getattr(options, rule)
        if value is not None and not re.fullmatch(pattern, value):
            raise UserError(f"{option(rule)} {value}: expected {form}, as immunax.verify prints it.")
        fixed |= {} if value is None else {rule: value}
    key = None if options.key is None else public_key(options.key)
    found = board(_found(options.certificates), key, fixed)
    for line in found.left_out:
        say(line, error=True)
    if not found.entries:
        raise UserError("none of the certificates can be ranked.")
    with atomic.file(options.out / "index.html") as temp:
        temp.write_text(page(found), encoding="utf-8")
    say(f"{len(found.entries)} models ranked: {options.out / 'index.html'}")
    return EXIT_SOME if found.left_out else 0


def _within(folder: Path) -> list[Path]:
    return sorted(path for path in below(folder) if path.name == FILE)


def _found(given: Sequence[Path]) -> list[Path]:
    paths = [path for each in given for path in (_within(each) if each.is_dir() else [each])]
    if not paths:
        raise UserError(f"no {FILE} below {', '.join(map(str, given))}.")
    return paths


if __name__ == "__main__":
    sys.exit(main())
