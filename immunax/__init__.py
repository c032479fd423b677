"""Immunize language models against fine-tuning, attack them, and certify what was found."""

import sys

from immunax.runtime.preemption import Leaving

if sys.argv[:1] == [
    "-m"
]:  # so it is while Python looks for the module of a command: the imports that follow take seconds
    Leaving().__enter__()
