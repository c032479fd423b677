"""What a run was asked for, as Hydra keeps it beside it: for runs without a manifest, or with one of an earlier version."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import read_bytes

_FILE = ".hydra/overrides.yaml"
_MOST = 1 << 16
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Overrides:
    """The overrides of one run.

    Attributes:
      values: by key, without the signs before it.
    """

    values: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path) -> "Overrides":
        """Of a run's folder; none where they cannot be read."""
        try:
            lines = yaml.load(read_bytes(folder / _FILE, _MOST), Loader=_LOADER)
        except (UserError, yaml.YAMLError, ValueError, RecursionError):
            return cls({})
        told = lines if isinstance(lines, list) else ()
        pairs = [line.lstrip("+~").partition("=") for line in told if isinstance(line, str)]
        return cls({key: _value(text) for key, _, text in pairs if key})

    def choices(self, config: Mapping[str, Any]) -> dict[str, str]:
        """What was chosen of each group; keys with points are fields, and so are those that a configuration has a value for.

        Args:
          config: of the run; empty where it is not known.
        """
        return {
            key: str(value)
            for key, value in self.values.items()
            if "." not in key.partition("@")[0] and isinstance(config.get(key.partition("@")[0], {}), dict)
        }


def _value(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":  # as Hydra takes what has signs of its grammar in it
        return text[1:-1].replace(f"\\{text[0]}", text[0])
    try:
        return json.loads(text)
    except ValueError:
        return text
