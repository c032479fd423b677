"""``python -m immunax.push RUN_OR_FOLDER repo=OWNER/NAME``: put a model, its card and its certificate on the Hugging Face Hub.

Exit statuses: 0, also where everything was there already; 2 where something is refused, here or there, in one line.
"""

import sys
from collections.abc import Sequence

from immunax.publish.options import HELP, Options, parse
from immunax.runtime import word_command
from immunax.runtime.escaped import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks, sends, and gives the exit status.

    Args:
      arguments: of the command line; the process's own by default.
    """
    return word_command.run(arguments, HELP, lambda words: _push(parse(words)))


def _push(options: Options) -> None:
    # Models' libraries, and the Hub's client with them, take seconds that a mistake in the words does not wait for.
    from immunax.publish.checked import checked
    from immunax.publish.upload import send
    from immunax.publish.whole import whole

    found = checked(options.model, options.certificate, options.key, options.bundle_key)
    for each in found.checks:
        say(f"{each.result:<12} {each.name}: {each.detail}")
    items = whole(options, found)
    for item in items:
        say(f"{item.size:>15,} bytes  {item.name}")
    total = f"{len(items)} files, {sum(item.size for item in items):,} bytes"
    where = options.repo if options.revision is None else f"{options.repo}@{options.revision}"
    if options.dry_run:
        say(f"would be sent to {where}: {total}; dry_run=true sends nothing")
        return
    message = "Model" if found.stated is None else "Model and certificate"
    sent = send(options.repo, items, message, options.revision, options.private, options.replace)
    if sent.new:
        say(f"sent to {where}: {total}, commit {sent.commit[:12]}: {sent.address}")
    else:
        say(f"{where} has these very files already, commit {sent.commit[:12]}; nothing was sent: {sent.address}")


if __name__ == "__main__":
    sys.exit(main())
