"""``python -m immunax.leaderboard CERTIFICATES... --out FOLDER``: rank certified models on a static page."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from immunax.certificate.ranking import entries, page
from immunax.certificate.signing import public_key
from immunax.certificate.statement import FILE, parse
from immunax.runtime import atomic
from immunax.runtime.errors import UserError, refused
from immunax.runtime.escaped import say

EXIT_USER = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes ``index.html``, and gives the exit status: 0, or 2 where a certificate is refused.

    Args:
      arguments: of the command line; the process's own by default.
    """
    parser = argparse.ArgumentParser(prog="python -m immunax.leaderboard", description="Rank certified models.")
    parser.add_argument("certificates", type=Path, nargs="+", help=f"{FILE} files, or folders that hold some")
    parser.add_argument("--key", type=Path, help="PEM file of the public key that should have signed them all")
    parser.add_argument("--out", type=Path, default=Path("leaderboard"), help="folder of the page")
    options = parser.parse_args(arguments)
    try:
        paths = _found(options.certificates)
        ranked = entries(paths, None if options.key is None else public_key(options.key))
        said = parse(paths[0])[1]["predicate"]
        with atomic.file(options.out / "index.html") as temp:
            temp.write_text(page(ranked, said["suite"]["name"], said["policy"]["confidence"]), encoding="utf-8")
    except (UserError, OSError) as error:
        say(f"error: {refused(error) if isinstance(error, OSError) else error}", error=True)
        return EXIT_USER
    say(f"{len(ranked)} models ranked: {options.out / 'index.html'}")
    return 0


def _found(given: Sequence[Path]) -> list[Path]:
    paths = [path for each in given for path in (sorted(each.rglob(FILE)) if each.is_dir() else [each])]
    if not paths:
        raise UserError(f"no {FILE} below {', '.join(map(str, given))}.")
    return paths


if __name__ == "__main__":
    sys.exit(main())
