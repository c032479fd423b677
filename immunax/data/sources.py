"""One file or Hub set, read as dialogs and dealt out to the splits."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from immunax.data.columns import WantedColumns, cell, chat, holds, text
from immunax.data.dialog import Dialog, Message, prompt_key
from immunax.data.files import Form, Row, read_file
from immunax.data.online import Hub, read_hub
from immunax.runtime import mirror
from immunax.runtime.errors import UserError, nearest

FEWEST = 64
"""Prompts that a source keeps of any share: a batch of each recipe, and the samples of an attack, are to be had from them."""

SPLITS = ("train", "attack", "validation", "test", "transfer")


@dataclass(frozen=True)
class Source:
    """How the rows of one file become dialogs.

    Rows whose prompt or answer is blank are left out, where the source names a column for it; of chat messages, those where a
    turn before the answer is blank, and a blank system message alone.

    Attributes:
      path: the file, below the corpus's ``root`` when that is given, else from the working directory.
      splits: split -> the share of the distinct prompts that go there; the shares add up to 1. All rows with
        the same prompt land in the same split.
      prompt: the column with the user's turn, or several to join; ``None`` for plain text without a prompt.
      answer: the column with the assistant's turn; ``None`` for prompts only.
      system: the column with the system's turn, if any.
      words: value of the column ``answer`` -> the answer it stands for, where the column holds labels.
      messages: the column of chat messages, in place of ``prompt``, ``answer`` and ``system``.
      hub: where the set lives online; read when the corpus has no ``root``.
      where: column -> value(s): only rows that have one of them, in every column named.
      exclude: column -> value(s): no row that has one of them, in any column named.
      at_least: the fewest characters of an answer; shorter ones (headings, say) are left out.
      unique: keep the first row of each prompt only.
      limit: keep the first rows only, this many, after every other filter.
      share: of the distinct prompts that are left, the share that is kept, of 64 or more; with it a prompt's other rows.
      repeat: how often each dialog stands in the split ``train``.
      form: what the file's name does not tell about its contents.
    """

    path: str
    splits: Mapping[str, float]
    prompt: str | Sequence[str] | None = "prompt"
    answer: str | None = "response"
    system: str | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    messages: str | None = None
    hub: Hub | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    exclude: Mapping[str, Any] = field(default_factory=dict)
    at_least: int = 0
    unique: bool = False
    limit: int | None = None
    share: float = 1.0
    repeat: int = 1
    form: Form = field(default_factory=Form)

    def __post_init__(self) -> None:
        for name in self.splits:
            if name not in SPLITS:
                known = ", ".join(SPLITS)
                raise UserError(f"data source {self.path}: no split {name!r}; expected {known}.{nearest(name, SPLITS)}")
        shares = list(self.splits.values())
        if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise UserError(f"data source {self.path}: the shares of its splits are {shares}; they must add up to 1")
        if self.prompt is None and self.answer is None and self.messages is None:
            raise UserError(f"data source {self.path}: names no column; set prompt, answer or messages")
        if self.words and self.answer is None:
            raise UserError(f"data source {self.path}: words names answers, but answer names no column")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"data source {self.path}: limit is {self.limit}; expected 1 or more, or null for all rows")
        if not 0 < self.share <= 1:
            raise UserError(f"data source {self.path}: share is {self.share}; expected a share above 0, at most 1")
        if self.repeat < 1:
            raise UserError(f"data source {self.path}: repeat is {self.repeat}; expected 1 or more")

    def dialogs(self, root: str | None) -> list[Dialog]:
        """Reads, filters and maps the rows.

        Args:
          root: the folder of local copies, or ``None``.

        Returns:
          The dialogs, in the file's order.

        Raises:
          UserError: the file, a column or a cell is not as described, or no row is left.
        """
        origin = f"data source {self.path}"
        found: dict[Any, Dialog] = {}
        columns = WantedColumns(self._columns(), origin)
        for number, row in enumerate(map(columns.fill, self._rows(root)), 1):
            if not all(holds(row, self.where, origin)) or any(holds(row, self.exclude, origin)):
                continue
            dialog = self._dialog(row, f"{origin}, row {number}")
            if dialog is not None:
                found.setdefault(prompt_key(dialog) if self.unique else number, dialog)
            if self.limit is not None and len(found) >= self.limit and not columns.unseen:
                break
        columns.check()
        if not found:
            raise UserError(f"{origin}: no row is left after its filters; check where, exclude and at_least")
        return self._kept(list(found.values())[: self.limit])

    def parts(self, root: str | None, seed: int) -> dict[str, list[Dialog]]:
        """The dialogs of each split that ``splits`` names.

        Args:
          root: the folder of local copies, or ``None``.
          seed: which of the equally good ways to share out the prompts.

        Returns:
          Split -> dialogs, each in the file's order; those of ``train`` as often as ``repeat`` says.

        Raises:
          UserError: as ``dialogs``.
        """
        dialogs = self.dialogs(root)
        keys = [prompt_key(dialog) for dialog in dialogs]
        home = deal(keys, self.splits, seed)
        found: dict[str, list[Dialog]] = {name: [] for name in self.splits}
        for dialog, key in zip(dialogs, keys, strict=True):
            found[home[key]].append(dialog)
        if "train" in found:
            found["train"] *= self.repeat
        return found

    def _kept(self, dialogs: list[Dialog]) -> list[Dialog]:
        if self.share == 1:
            return dialogs
        keys = [prompt_key(dialog) for dialog in dialogs]
        ordered = sorted(set(keys), key=lambda key: _rank(key, "share"))
        kept = set(ordered[: max(FEWEST, round(self.share * len(ordered)))])
        return [dialog for dialog, key in zip(dialogs, keys, strict=True) if key in kept]

    def _columns(self) -> list[str]:
        """Every column that a row is asked for."""
        prompt = [self.prompt] if isinstance(self.prompt, str) else list(self.prompt or ())
        named = [self.messages] if self.messages else [*prompt, self.answer, self.system]
        return [column for column in (*named, *self.where, *self.exclude) if column is not None]

    def _rows(self, root: str | None) -> Iterator[Row]:
        if root is not None:
            folder = mirror.local(root)
            if not (mirror.is_mirrored(folder) or folder.is_dir()):
                raise UserError(f"data.root={root} is not a folder; set it to the folder that holds the sets")
            return read_file(mirror.fetch(folder / self.path), self.form)
        if self.hub is not None:
            return read_hub(self.hub, self.form)
        return read_file(mirror.brought(self.path), self.form)

    def _dialog(self, row: Row, origin: str) -> Dialog | None:
        if self.messages is not None:
            dialog = chat(row, self.messages, origin)
            return dialog if dialog is not None and len(dialog.answer) >= self.at_least else None
        prompt = "" if self.prompt is None else text(row, self.prompt, origin)
        answer = "" if self.answer is None else self._answer(row, self.answer, origin)
        system = "" if self.system is None else text(row, self.system, origin)
        blank = (self.prompt is not None and not prompt) or (self.answer is not None and not answer)
        if blank or len(answer) < self.at_least:
            return None
        turns = (("system", system), ("user", prompt))
        return Dialog(tuple(Message(role, content) for role, content in turns if content), answer)

    def _answer(self, row: Row, column: str, origin: str) -> str:
        if not self.words:
            return text(row, column, origin)
        value = cell(row, column, origin)
        label = "" if value is None else str(value)
        if not label.strip():
            return ""
        if label not in self.words:
            known = ", ".join(self.words)
            raise UserError(f"{origin}: column {column!r} holds {label!r}, which words does not name; it has {known}.")
        return self.words[label]


def deal(keys: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Deals distinct keys out to splits, in shares.

    Args:
      keys: prompts, repeats allowed.
      shares: split -> share, in any order.
      seed: the order in which the keys are dealt.

    Returns:
      Key -> split. The number of keys of each split is its share, rounded.
    """
    ordered = sorted(set(keys), key=lambda key: _rank(key, seed))
    home, start, reached = {}, 0, 0.0
    for name in sorted(shares, key=SPLITS.index):
        reached += shares[name]
        stop = round(reached * len(ordered))
        home.update(dict.fromkeys(ordered[start:stop], name))
        start = stop
    return home


def _rank(key: str, salt: Any) -> bytes:
    return hashlib.blake2b(f"{salt}\0{key}".encode(), digest_size=16).digest()
