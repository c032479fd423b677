"""Immunize language models against fine-tuning, attack them, and certify what was found."""

import os
import sys

_OF_STRANGERS = {"immunax", "immunax.verify", "immunax.leaderboard", "immunax.results", "immunax.push"}
"""Commands that are started where strangers' files lie, and need no module of the user's; and what becomes a command."""

if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module of a command
    _home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # ``python -m`` would take every module, such as yaml, from the folder that it is started in first.
    if not sys.flags.safe_path and _OF_STRANGERS & set(sys.orig_argv) and sys.path[0] != _home:
        del sys.path[0]

    from immunax.runtime.signals import Leaving

    Leaving().__enter__()  # the imports that follow take seconds
