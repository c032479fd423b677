"""Work that attempts share: a table is read once, and so are verdicts of the same tables under the same policy computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from immunax.certificate import measured, planned, verify
from immunax.certificate.report import html
from immunax.conditions import records
from immunax.runtime.digest import of_file

_MOST = 500


@contextmanager
def shared() -> Iterator[None]:
    """Within it, reading tables, assessing them and drawing their charts remember what they found: equal arguments give equal
    values."""
    assess, read, hole, beyond, side = (
        _Remembered(each) for each in (verify.assess, records.read, measured.fault, planned.beyond, html._side)
    )

    def read_once(path: Path, columns: dict[str, str]) -> Any:
        return read.of((of_file(path), repr(columns)), path, columns)

    def hole_once(said: Any, *both: Any) -> Any:
        about = said["reference"] is None, repr(said["suite"]["config"]["suite"].get("task")), repr(said["attacks"])
        return hole.of((about, *map(_key, both)), said, *both)

    def side_once(stated: Any, *rest: Any) -> Any:
        said = stated["predicate"]
        return side.of((repr((said["policy"], said["attacks"])), *map(_key, rest)), stated, *rest)

    with (
        mock.patch.object(verify, "assess", assess),
        mock.patch.object(planned, "beyond", beyond),
        mock.patch.object(records, "read", read_once),
        mock.patch.object(measured, "fault", hole_once),
        mock.patch.object(html, "_side", side_once),
    ):
        yield


class _Remembered:
    """A function, and its last values; one that it refused is asked again."""

    def __init__(self, function: Any) -> None:
        self._function, self._found = function, {}

    def __call__(self, *arguments: Any) -> Any:
        return self.of(tuple(map(_key, arguments)), *arguments)

    def of(self, key: Any, *arguments: Any) -> Any:
        if key not in self._found:
            if len(self._found) > _MOST:
                self._found.clear()
            # With what it was found for: a table that is gone would leave its place to another.
            self._found[key] = self._function(*arguments), arguments
        return self._found[key][0]


def _key(value: Any) -> Any:
    """Of a table, which is read once, itself."""
    return id(value) if isinstance(value, pd.DataFrame) else repr(value)
