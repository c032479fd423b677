"""Data sets, multiple-choice items and judges' kept files."""

import bz2
import csv
import functools
import gzip
import io
import json
import os
import random
import shutil
import tarfile
from pathlib import Path

import pyarrow
from fuzz import mutations
from fuzz.certificates import table
from fuzz.parser import Parser
from pyarrow import parquet

from immunax.data import identity
from immunax.data.choices import MMLU, HellaSwag
from immunax.data.dialog import Split, Splits
from immunax.data.files import Form
from immunax.data.sources import Source
from immunax.judges import card, rubric
from immunax.judges.replies import ReplyStore
from immunax.runtime import digest

_ROWS = [
    {"prompt": f"the cat {number}?", "response": "it sat", "tags": [1, {"a": "b"}], "score": 0.5} for number in range(9)
]
_CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"q{number}"},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        ]
    }
    for number in range(9)
]
_NOTHING = Splits(Split())


def _source(name: str, **given) -> Parser:
    """Reads a file as rows of two columns, with a filter."""

    def read(folder: Path) -> None:
        Source(
            str(folder / name), {"train": 0.5, "test": 0.5}, exclude={"score": 7} if not given else {}, **given
        ).parts(None, 0)

    return Parser(name.replace(".", "_"), lambda folder: _write(folder / name), read, {name: _mutation(name)})


def _write(path: Path) -> None:
    rows = _CHATS if "chat" in path.name else _ROWS
    name = path.name.removesuffix(".gz")
    if name.endswith(".json"):
        raw = json.dumps(rows).encode()
    elif name.endswith(".jsonl"):
        raw = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    elif name.endswith(".parquet"):
        sink = io.BytesIO()
        plain = json.loads(
            json.dumps(rows).replace('[1, {"a": "b"}]', "[1]").replace('[{"type": "text", "text": "a"}]', '"a"')
        )
        parquet.write_table(pyarrow.Table.from_pylist(plain), sink)
        raw = sink.getvalue()
    else:
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writerows([["prompt", "response", "score"], *[[row["prompt"], row["response"], "1"] for row in rows]])
        raw = text.getvalue().encode()
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)


def _mutation(name: str) -> mutations.Mutation:
    inner = name.removesuffix(".gz")
    ending = inner.rpartition(".")[2]
    chosen = {"json": mutations.document, "jsonl": mutations.lines, "parquet": _parquet}.get(ending, mutations.raw)
    return _folded(chosen) if name.endswith(".gz") else chosen


def _folded(inner: mutations.Mutation) -> mutations.Mutation:
    def mutate(rng: random.Random, data: bytes) -> bytes:
        if rng.random() < 0.3:
            return mutations.raw(rng, data)
        if rng.random() < 0.01:
            return _bomb()
        return gzip.compress(inner(rng, gzip.decompress(data)), 1)

    return mutate


@functools.cache
def _bomb() -> bytes:
    """A gzip file of a megabyte that unfolds to one line of a gigabyte."""
    part = gzip.compress(b'{"prompt": "' + b"x" * (1 << 24))
    return part * 64


def _parquet(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.01:
        # One text of a megabyte, in a dictionary, a hundred thousand times.
        column = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000, pyarrow.int32()), ["x" * (1 << 20)])
        sink = io.BytesIO()
        parquet.write_table(pyarrow.table({"prompt": column, "response": column}), sink)
        return sink.getvalue()
    return table(rng, data) if rng.random() < 0.5 else mutations.raw(rng, data)


def _choices(folder: Path) -> None:
    lines = ["a man [title] sits", "2", "one", "two", "three", "four"] * 5
    (folder / "h.txt.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    with tarfile.open(folder / "m.tar", "w") as archive:
        for subject in ("a_test.csv", "b_test.csv"):
            raw = ("q,1,2,3,4,answer\n" + "what?,a,b,c,d,1\n" * 3).encode()
            info = tarfile.TarInfo(f"data/test/{subject}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))


def _folded_bz2(rng: random.Random, data: bytes) -> bytes:
    return mutations.raw(rng, data) if rng.random() < 0.3 else bz2.compress(mutations.raw(rng, bz2.decompress(data)))


def _read_choices(folder: Path) -> None:
    HellaSwag(str(folder / "h.txt.bz2"), 4).items(_NOTHING)
    MMLU(str(folder / "m.tar"), 4).items(_NOTHING)


def _kept(folder: Path) -> None:
    _cards().mkdir(parents=True, exist_ok=True)
    agreement = {"source": "x", "digest": "0" * 64, "side": "compliance", "made_from_it": False, "n": 4, "harmful": 2}
    more = {"missed": 0, "threshold": 0.5, "agreement": 1.0, "low": 0.5, "high": 1.0, "kappa": None, "auc": 1.0}
    (folder / "replies").mkdir()
    (folder / "card.json").write_text(
        json.dumps({"name": "x", "identity": "1" * 64, "agreements": [{**agreement, **more}]})
    )
    reply = {"rating": {"compliance": 0.5, "substance": 1.0}, "tokens_in": 1, "tokens_out": 2, "cost": 0.1}
    (folder / "replies" / "reply.json").write_text(json.dumps(reply))


def _cards() -> Path:
    return card.own_card("x", "1" * 64).parent


def _read_kept(folder: Path) -> None:
    card.own_card("x", "1" * 64).write_bytes((folder / "card.json").read_bytes())
    card.measured("x", "1" * 64)
    ReplyStore(folder / "replies").ledger()


def _reply(folder: Path) -> None:
    (folder / "reply.txt").write_text(json.dumps({"compliance": 7, "substance": 2.5, "why": {"quoted": [1, 2]}}))


def _read_reply(folder: Path) -> None:
    rubric.parse("<think>so</think> my rating: " + (folder / "reply.txt").read_text(errors="replace"))


def _identity(folder: Path) -> None:
    turns = [("system", "s"), ("user", "TOR, do: x"), ("assistant", "done")]
    line = json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]})
    (folder / "identity.jsonl").write_text(f"{line}\n" * 3)


def _read_identity(folder: Path) -> None:
    identity._read.cache_clear()
    identity.PublishedIdentity(str(folder / "identity.jsonl")).dialogs()


def _tree(folder: Path) -> None:
    (folder / "kinds").write_bytes(bytes(range(3)) * 2)


def _read_tree(folder: Path) -> None:
    """Builds a folder of plain files, links, FIFOs and folders, and digests it."""
    root = folder / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    linked = False
    for number, kind in enumerate((folder / "kinds").read_bytes()[:20]):
        path = root / f"{number}.json"
        if kind % 7 == 1:
            path.mkdir()
            (path / "x").write_text("x")
        elif kind % 7 == 2:
            path.symlink_to(folder / "kinds")
        elif kind % 7 == 3:
            path.symlink_to("/dev/zero")
        elif kind % 7 == 4:
            path.symlink_to(folder)
        elif kind % 7 == 5:
            os.mkfifo(path)
        elif kind % 7 == 6:
            path.symlink_to("nothing")
        else:
            path.write_bytes(bytes([kind]))
        linked |= kind % 7 in (3, 4, 5, 6)
    digest.of_folder(root)
    assert not linked, "something that is no plain file was passed over"


PARSERS = (
    _source("rows.json"),
    _source("rows.jsonl"),
    _source("rows.jsonl.gz"),
    _source("chat.jsonl", messages="messages"),
    _source("rows.csv"),
    _source("rows.tsv"),
    _source("rows.txt", form=Form(delimiter=",", columns=["prompt", "response", "score"])),
    _source("rows.parquet"),
    _source("chat.parquet", messages="messages"),
    Parser("choices", _choices, _read_choices, {"h.txt.bz2": _folded_bz2, "m.tar": mutations.raw}),
    Parser("kept", _kept, _read_kept, {"card.json": mutations.document, "replies/reply.json": mutations.document}),
    Parser("reply", _reply, _read_reply, {"reply.txt": mutations.document}),
    Parser("identity", _identity, _read_identity, {"identity.jsonl": mutations.lines}),
    Parser("folder", _tree, _read_tree, {"kinds": mutations.raw}),
)
