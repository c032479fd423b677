"""Text of strangers as it may stand in a line of ours: one line, whose every character is seen where it stands.

A name may hold line breaks, sequences that move the cursor, characters without a shape or a place of their own, letters that
turn the order of what stands beside them, and half characters that no encoding takes. Each is written as Python writes it, such
as ``\\u202e``. What is escaped once stays as it is.
"""

import io
import logging
import sys
import unicodedata
from contextlib import suppress
from typing import Any, TextIO

from immunax.runtime import stand_ins

LONGEST = 2000
"""Characters of a line: what strangers' files say is quoted in messages, and may be megabytes."""

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\U00016fe4\U0001d159")
"""Letters and symbols that are printed as nothing."""
_SHAPELESS = (
    (0x34F, 0x34F),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0xFE00, 0xFE0F),
    (0x1BC9D, 0x1BCA3),
    (0xE0100, 0xE01EF),
)
"""Marks that are printed as nothing: joiners and selectors of variants."""
_TURNING = ("R", "AL", "AN")
"""Directions of letters and digits that are read from the right: those beside them would be put in another order."""
_MARKS = 2
"""Marks that one letter carries; any number of them would climb into the lines above."""
_GAP = " … "


def escaped(text: str, most: int = LONGEST) -> str:
    """A text as one line.

    Args:
      text: anything; paths that stand for places in a bucket are told as these.
      most: characters of the line; of a longer one the middle is left out.
    """
    text = _cut(stand_ins.told(text), most)
    return text if text.isascii() and text.isprintable() else _cut(_seen(text), most)


def say(text: str, error: bool = False) -> None:
    """Prints a text as one line; no encoding of the terminal refuses it.

    Args:
      text: anything.
      error: to standard error, else to standard output.
    """
    print(escaped(text), file=taking_all(sys.stderr if error else sys.stdout))


def escape_logs() -> None:
    """From now on what any library logs or warns of is one line a message, as everything else: libraries quote what files say."""
    make = logging.getLogRecordFactory()
    if getattr(make, "__module__", None) == __name__:
        return

    def made(*given: Any, **named: Any) -> logging.LogRecord:
        record = make(*given, **named)
        with suppress(TypeError, ValueError):  # arguments that do not fit, which its handler tells of
            record.msg, record.args = escaped(record.getMessage()), ()
        # A traceback quotes too; ours are printed where the process ends.
        record.exc_info = record.exc_text = record.stack_info = None
        return record

    logging.setLogRecordFactory(made)
    logging.captureWarnings(True)


def taking_all(stream: TextIO) -> TextIO:
    """The stream, which from now on writes what its encoding has no character for as an escape, and never raises for it."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
        stream.reconfigure(errors="backslashreplace")
    return stream


def _seen(text: str) -> str:
    parts, marks = [], _MARKS
    for each in text:
        # A mark without a letter of its own would sit on ours.
        marks = marks + 1 if unicodedata.category(each).startswith("M") else 0
        parts.append(each if marks <= _MARKS and _is_seen(each) else ascii(each)[1:-1])
    return "".join(parts)


def _is_seen(each: str) -> bool:
    if each.isascii() or not each.isprintable():
        return each.isprintable()
    shapeless = each in _BLANK or any(low <= ord(each) <= high for low, high in _SHAPELESS)
    return not shapeless and unicodedata.bidirectional(each) not in _TURNING


def _cut(text: str, most: int) -> str:
    half = (most - len(_GAP)) // 2
    return text if len(text) <= most else f"{text[:half]}{_GAP}{text[-half:]}"
