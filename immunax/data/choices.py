"""Multiple-choice items: a context, several continuations of it, and which of them is right."""

import csv
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple, cast

from immunax.data.dialog import Dialog, Splits
from immunax.data.fictional.draws import number, shuffled
from immunax.data.text_files import LONGEST, open_text
from immunax.runtime import mirror
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.unfold import open_unfolded

_LETTERS = "ABCD"
_NUMBERS = frozenset("0123")
_LINES = 6


class MultipleChoice(NamedTuple):
    """One question.

    Attributes:
      context: a prompt that the assistant is to answer, or plain text to go on with.
      choices: the answers to choose from.
      answer: which is right.
    """

    context: Dialog | str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class FromDialogs:
    """Items out of harmless dialogs: the dialog's own answer among the answers to other ones.

    Attributes:
      count: items, of the first dialogs of the split ``test``.
      options: choices of each.
      seed: of the other answers, and of the order.
    """

    count: int = 60
    options: int = 4
    seed: int = 0

    def __post_init__(self):
        if self.count < 1 or self.options < 2:
            raise UserError(f"choices count={self.count}, options={self.options}: expected at least 1 and 2.")

    def items(self, splits: Splits) -> tuple[MultipleChoice, ...]:
        """The items.

        Raises:
          UserError: the split has too few different answers.
        """
        dialogs = [dialog for dialog in splits.test.retain if dialog.answer]
        answers = tuple(dict.fromkeys(dialog.answer for dialog in dialogs))
        if len(answers) < self.options:
            raise UserError(
                f"choices: {self.options} different answers are needed, and the stream retain of the split test has "
                f"{len(answers)}; choose other data, or choices=null."
            )
        return tuple(self._item(dialog, answers) for dialog in dialogs[: self.count])

    def _item(self, dialog: Dialog, answers: Sequence[str]) -> MultipleChoice:
        others = (answer for answer in answers if answer != dialog.answer)
        drawn = sorted(others, key=lambda answer: number(self.seed, dialog.question, answer))[: self.options - 1]
        choices = tuple(shuffled([dialog.answer, *drawn], self.seed, "order", dialog.question))
        return MultipleChoice(dialog, choices, choices.index(dialog.answer))


@dataclass(frozen=True)
class HellaSwag:
    """HellaSwag (Zellers et al. 2019, arXiv:1905.07830), the validation set as a text of six lines an item.

    Attributes:
      path: of the bzip2 file: context, number of the right ending, four endings, and so on.
      count: items, the first ones.
    """

    path: str
    count: int = 100

    def items(self, splits: Splits) -> tuple[MultipleChoice, ...]:
        """The items, in the order of the file.

        Raises:
          UserError: the file cannot be read, or is of another form.
        """
        try:
            with open_text(mirror.brought(self.path)) as file:
                lines = [file.readline(LONGEST).rstrip("\n") for _ in range(_LINES * self.count)]
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise UserError(
                f"choices.path={self.path}: cannot be read as bzip2 text ({type(error).__name__})."
            ) from error
        while lines and not lines[-1]:
            lines.pop()
        groups = [lines[start : start + _LINES] for start in range(0, len(lines), _LINES)]
        if not groups or any(len(group) < _LINES or group[1] not in _NUMBERS for group in groups):
            raise UserError(f"choices.path={self.path}: expected six lines an item, the second of them 0 to 3.")
        return tuple(
            MultipleChoice(_cleaned(group[0]), tuple(map(_cleaned, group[2:])), int(group[1])) for group in groups
        )


def _cleaned(text: str) -> str:
    # What the captions of WikiHow leave behind.
    return re.sub(r"\s+", " ", re.sub(r"\[.*?\]", "", text.replace(" [title]", ". "))).strip()


@dataclass(frozen=True)
class MMLU:
    """MMLU (Hendrycks et al. 2020, arXiv:2009.03300), as an archive of one CSV a subject.

    Attributes:
      path: of the archive; rows are question, four choices, and the number of the right one, under a header.
      count: items, taken from every subject in turn.
    """

    path: str
    count: int = 100

    def items(self, splits: Splits) -> tuple[MultipleChoice, ...]:
        """The items of the files whose path holds ``test``.

        Raises:
          UserError: the archive cannot be read, or is of another form.
        """
        try:
            subjects = list(self._subjects())
        except (OSError, EOFError, tarfile.TarError, csv.Error, UnicodeDecodeError) as error:
            raise UserError(
                f"choices.path={self.path}: cannot be read as an archive ({type(error).__name__})."
            ) from error
        longest = max((len(rows) for rows in subjects), default=0)
        rows = [each[place] for place in range(longest) for each in subjects if place < len(each)][: self.count]
        if not rows or any(len(row) != 2 + len(_LETTERS) or row[-1] not in _NUMBERS for row in rows):
            raise UserError(f"choices.path={self.path}: expected CSV files of question, four choices and 0 to 3.")
        return tuple(_asked(row) for row in rows)

    def _subjects(self) -> Iterator[list[list[str]]]:
        with open_unfolded(mirror.brought(self.path)) as file:
            # An archive is read back and forth.
            whole = file if file.seekable() else io.BytesIO(file.read())
            with tarfile.open(fileobj=whole, mode="r:") as archive:
                for member in sorted(archive.getmembers(), key=lambda member: member.name):
                    # A sparse member of a few bytes claims any number of zeros.
                    plain = member.isfile() and not member.issparse()
                    if plain and "test" in member.name and member.name.endswith(".csv"):
                        text = io.TextIOWrapper(cast(IO[bytes], archive.extractfile(member)), "utf-8", newline="")
                        yield list(csv.reader(text))[1:]


def _asked(row: Sequence[str]) -> MultipleChoice:
    question, *choices, answer = row
    listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip(_LETTERS, choices, strict=True))
    return MultipleChoice(f"{question.strip()}{listed}\nAnswer:", tuple(_LETTERS), int(answer))
