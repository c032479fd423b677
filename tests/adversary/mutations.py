"""What a cheat who knows the format changes: a value that could have stood there, a row, a file, a threshold."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from adversary.forge import BROKEN, Said, put, read, sealed
from fuzz.mutations import altered

from immunax.certificate.report import html, model_card
from immunax.certificate.statement import FILE
from immunax.certificate.verify import CELLS, RECORDS, tables
from immunax.conditions.records import REFERENCE, SUBJECT, Table, write
from immunax.runtime.digest import of_file

KINDS = ("statement", "tables", "folder", "policy")
_WORDS = ("holds", "fails", "inconclusive", "unmeasured", "held-out", "seen", "unknown", "own", "shared", "sft", "lora")
_HEX = "0123456789abcdef"


def mutate(rng: random.Random, path: Path, kind: str) -> str:
    """Changes a certificate, and makes fit again what a forger would.

    Args:
      rng: chooses.
      path: of the certificate, in a folder of its own.
      kind: of :data:`KINDS`.

    Returns:
      What was changed, in words.
    """
    done = _KINDS[kind](rng, path)
    if kind == "folder":
        return done
    # Pages of another statement would tell: whoever is shown none makes them of what is said.
    for page in (html.FILE, model_card.FILE):
        (path.parent / page).unlink(missing_ok=True)
    # Digests alone, or everything that follows: the first is told by what it contradicts, the second contradicts nothing.
    if rng.random() < 0.5:
        return f"{done}, digests anew"
    try:
        sealed(path)
    except BROKEN:
        return f"{done}, and no verdicts follow"
    return f"{done}, all anew"


def _statement(rng: random.Random, path: Path) -> str:
    found = read(path)
    if rng.random() < 0.1:
        _written(path, altered(rng, found))
        return "statement: strange values"
    places = [at for at in _places(found, ()) if at]
    # By sections: verdicts and configurations have more leaves than all the rest.
    section = rng.choice([each for each in places if len(each) == 1 + (each[0] == "predicate")])
    at = rng.choice([each for each in places if each[: len(section)] == section])
    parent: Any = found
    for name in at[:-1]:
        parent = parent[name]
    _change(rng, parent, at[-1], found)
    _written(path, found)
    return f"statement: {'.'.join(str(name) for name in at if isinstance(name, str))}"


def _written(path: Path, found: Any) -> None:
    """With its digest, where there is still a place for one."""
    try:
        put(path, found)
    except BROKEN:
        path.write_text(json.dumps(found, default=str))


def _places(value: Any, at: tuple) -> Iterator[tuple]:
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from _places(child, (*at, name))


def _change(rng: random.Random, parent: Any, name: Any, whole: Said) -> None:
    kind = rng.random()
    if kind < 0.7 and not isinstance(parent[name], (dict, list)):
        parent[name] = _other(rng, parent[name], whole)
    elif isinstance(parent, list):
        _relist(rng, parent, name)
    elif kind < 0.85:
        del parent[name]
    else:
        parent[f"{name} " if rng.random() < 0.5 else rng.choice(list(parent))] = parent[name]


def _relist(rng: random.Random, items: list, at: int) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        del items[at]
    elif kind == 1:
        items.insert(at, items[at])
    elif kind == 2:
        items.reverse()
    else:
        items[at] = items[rng.randrange(len(items))]


def _other(rng: random.Random, value: Any, whole: Said) -> Any:
    """A value of the same kind that could have stood there."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, value * 10, 0, 1))
    if isinstance(value, float):
        return rng.choice((value * 0.5, value * 1.001, value + 1e-7, 0.0, 1.0, 0.999))
    if value is None:
        return rng.choice((0, 1.0, "holds", [], {}))
    if len(value) == 64 and set(value) <= set(_HEX):
        return "".join(rng.choice(_HEX) for _ in range(64))
    texts = [each for each in (_at(whole, at) for at in _places(whole, ())) if isinstance(each, str)]
    return rng.choice((rng.choice(_WORDS), rng.choice(texts), value[:-1], f"{value} and more", value.upper()))


def _at(value: Any, at: tuple) -> Any:
    for name in at:
        value = value[name]
    return value


def _tables(rng: random.Random, path: Path) -> str:
    records, cells = (table.copy() for table in tables(path.parent))
    name, done = rng.choice(
        [
            *((RECORDS, each) for each in (_values, _rows, _names, _weights)),
            *((CELLS, each) for each in (_costs, _rows, _roles)),
        ]
    )
    changed = done(rng, records if name == RECORDS else cells)
    write(path.parent / name, changed)
    found = read(path)
    for entry in found["predicate"]["records"]:
        if entry["name"] == name:
            entry.update(rows=len(changed), digest={"sha256": of_file(path.parent / name)})
    put(path, found)
    return f"tables: {done.__name__.strip('_')} of {name.partition('.')[0]}"


def _some(rng: random.Random, table: Table) -> np.ndarray:
    """Rows of one measure, one cell, one example, or a few."""
    column = rng.choice([name for name in ("cell", "measure", "unit", "split", "family", "model") if name in table])
    mine = (table[column] == rng.choice(list(table[column]))).to_numpy()
    few = np.array([rng.random() < rng.choice((0.02, 1.0)) for _ in range(len(table))])
    return mine & few if (mine & few).any() else mine


def _values(rng: random.Random, table: Table) -> Table:
    mine, value = _some(rng, table), table["value"]
    # Of all that stand there one takes another's place, and the sum stays.
    rearranged = value.sample(frac=1.0, random_state=rng.randrange(1000)).to_numpy()
    rearranged = (
        value.where(~mine, value[mine].iloc[::-1].set_axis(value.index[mine])) if rng.random() < 0.5 else rearranged
    )
    others = (
        value * 0.5,
        1 - value,
        value * 0,
        value * 1.1,
        value + 1,
        value * 0.97,
        value.where(value < 1, 0.9),
        rearranged,
    )
    return table.assign(value=value.where(~mine, rng.choice(others)))


def _weights(rng: random.Random, table: Table) -> Table:
    return table.assign(weight=table["weight"].where(~_some(rng, table), rng.choice((0.0, 1.0, 2.0, 100.0))))


def _rows(rng: random.Random, table: Table) -> Table:
    mine, kind = _some(rng, table), rng.randrange(4)
    if kind == 0:
        return table[~mine]
    if kind == 1:
        return table.sample(frac=1.0, random_state=rng.randrange(1000))
    column = "unit" if "unit" in table else "cell"
    more = table[mine].assign(**{column: table.loc[mine, column] + "x"}) if kind == 2 else table[mine]
    return pd.concat([table, more], ignore_index=True)


def _names(rng: random.Random, table: Table) -> Table:
    column = rng.choice(("cell", "split", "measure", "unit"))
    texts = sorted(set(table[column]))
    new = rng.choice((*texts, f"{texts[0]}x", "judge/other", "transfer", "choice"))
    return table.assign(**{column: table[column].where(~_some(rng, table), new)})


def _costs(rng: random.Random, table: Table) -> Table:
    column = rng.choice(("flops", "step", "samples", "seed", "clipped"))
    factor = rng.choice((0, 2, 10, 1000, -1, 0.95))
    other = (table[column] * factor + (column == "seed")).astype(table[column].dtype)
    return table.assign(**{column: table[column].where(~_some(rng, table), other)})


def _roles(rng: random.Random, table: Table) -> Table:
    mine, kind = _some(rng, table), rng.randrange(4)
    if kind == 0:
        return table.assign(model=table["model"].map({SUBJECT: REFERENCE, REFERENCE: SUBJECT}))
    if kind == 1:
        return table.assign(diverged=table["diverged"] ^ mine)
    column = ("family", "setting")[kind - 2]
    new = rng.choice(("none", "trainability", "sft", "lora", '{"samples": 1}'))
    return table.assign(**{column: table[column].where(~mine, new)})


def _policy(rng: random.Random, path: Path) -> str:
    """Thresholds in the statement, in its configuration, or in both."""
    found = read(path)
    said = found["predicate"]
    own, configured = said["policy"], said["suite"]["config"]["policy"]
    where = rng.choice(([own], [configured], [own, configured]))
    at = rng.choice([each for each in _places(own, ()) if each])
    value = _other(rng, _at(own, at), found) if not isinstance(_at(own, at), dict) else {}
    for policy in where:
        parent = policy
        for name in at[:-1]:
            parent = parent[name]
        parent[at[-1]] = value
    put(path, found)
    return f"policy: {'.'.join(map(str, at))} in {len(where)}"


def _folder(rng: random.Random, path: Path) -> str:
    folder = path.parent
    files = sorted(each for each in folder.rglob("*") if each.is_file() and each.suffix != ".pem")
    file = rng.choice(files)
    done = rng.choice(_FILES)
    place = "page" if file.name in (html.FILE, model_card.FILE) else "model" if file.parent != folder else "certificate"
    return done(rng, file) or f"folder: {done.__name__.strip('_')} of the {place}"


def _edited(rng: random.Random, file: Path) -> None:
    raw = file.read_bytes()
    old, new = rng.choice(((b"fails", b"holds"), (b"inconclusive", b"holds"), (b"0", b"1"), (b"", b"x")))
    file.write_bytes(raw.replace(old, new, 1) if old else raw + new)


def _removed(rng: random.Random, file: Path) -> None:
    file.unlink()


def _linked(rng: random.Random, file: Path) -> None:
    target = file.with_name("elsewhere-" + file.name)
    file.rename(target)
    file.symlink_to(target if rng.random() < 0.5 else "/dev/zero")


def _replaced(rng: random.Random, file: Path) -> None:
    others = [each for each in file.parent.iterdir() if each.is_file() and each != file]
    shutil.copy(rng.choice(others), file)


def _piped(rng: random.Random, file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _added(rng: random.Random, file: Path) -> str:
    name = rng.choice(
        ("AUDIT.md", "report2.html", "chat_template.jinja", "config.4.0.0.json", "modeling_x.py", "certificate.json")
    )
    if not (file.parent / name).exists():
        (file.parent / name).write_text("Everything holds.")
    return f"folder: a file added to the {'certificate' if (file.parent / FILE).exists() else 'model'}"


_FILES = (_edited, _edited, _removed, _linked, _replaced, _piped, _added)
_KINDS: dict[str, Callable[[random.Random, Path], str]] = {
    "statement": _statement,
    "tables": _tables,
    "folder": _folder,
    "policy": _policy,
}
