"""What is fuzzed: a folder of good files, how some of them are changed, and what reads them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from fuzz.mutations import Mutation


class Parser(NamedTuple):
    """One parser of strangers' files.

    Attributes:
      name: in the table.
      make: writes good files into an empty folder.
      read: reads the folder; raises ``UserError`` where it refuses.
      mutations: by name of a file, how it is changed; each input changes one.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], object]
    mutations: Mapping[str, Mutation]
