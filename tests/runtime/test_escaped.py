import io
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunax.runtime import console
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import LONGEST, escape_logs, escaped, say

HOSTILE = {
    "line breaks": "a\nb\r\nc\x0b\x0c\x85",
    "separators of other scripts": "a\u2028b\u2029c\xa0\u3000",
    "sequences of a terminal": "\x1b[2J\x1b]0;t\x07\x9b31m",
    "turned order": "\u202epassed\u202c\u2066\u2069\u200f\u061c",
    "letters from the right": "\u05d0 5 \u0627 \u0665",
    "nothing to see": "\u200b\u200d\ufeff\u2060\u00ad\u034f\ufe0f\u3164\u2800\U000e0041\U0001d159\U00016fe4\U0001bc9d",
    "half characters": "\ud800\udcff",
    "private use": "\ue000\U000f0000",
    "not assigned": "\u0378",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_of_a_name_is_printed_but_what_can_be_seen_where_it_stands(text):
    found = escaped(text)
    assert found.isprintable()
    for each in text:
        assert each not in found or (each.isascii() and each.isprintable())
        if not each.isascii():
            assert ascii(each)[1:-1] in found


def test_what_can_be_seen_stays_as_it_is():
    for text in ("plain [red]", "Größe – … «π» 模型", "e\u0301e\u0301", "\\n", ""):
        assert escaped(text) == text


def test_marks_neither_pile_up_nor_sit_on_a_letter_of_ours():
    assert escaped("\u0301x") == "\\u0301x"
    assert escaped("x" + "\u0301" * 4) == "x\u0301\u0301\\u0301\\u0301"


@given(st.text(), st.integers(10, 200))
def test_a_line_is_bounded_and_escaped_once(text, most):
    found = escaped(text, most)
    assert len(found) <= most
    assert escaped(found, most) == found


def test_the_middle_of_a_long_text_is_left_out():
    assert escaped("a" * 3000 + "b") == "a" * 998 + " … " + "a" * 997 + "b"
    assert len(escaped("\u202e" * 3000)) <= LONGEST


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_no_encoding_of_a_terminal_refuses_a_line(monkeypatch, encoding, errors):
    raw = [io.BytesIO(), io.BytesIO()]
    out, error = (io.TextIOWrapper(each, encoding, errors, write_through=True) for each in raw)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    text = "".join(HOSTILE.values()) + "模型 –"
    say(text)
    console.table(text, [text], [[text], ["…"]])
    say(text, error=True)
    console.note(text)
    with console.phase(text):
        pass
    for each in raw:
        lines = each.getvalue().decode(encoding).splitlines()
        assert all(line.isprintable() for line in lines)
    assert len(raw[1].getvalue().splitlines()) == 4


def test_markup_and_names_of_pictures_in_a_text_are_text(capsys, monkeypatch):
    text = "[red]a[/red] :smile: [link=x]"
    console.note(text)
    console.table(text, [text], [[text]])
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.progress(text, 1) as bar:
        bar.advance()
    captured = capsys.readouterr()
    assert captured.out.count("[red]a[/red] :smile: [link=x]") == 3
    assert captured.err.startswith(f"{text}\n")
    assert captured.err.count("[red]a[/red] :smile:") > 1


def test_what_a_library_logs_is_one_line_without_a_traceback(capsys):
    before = logging.getLogRecordFactory()
    try:
        escape_logs()
        escape_logs()
        handler = logging.StreamHandler(sys.stderr)
        logging.getLogger("foreign").addHandler(handler)
        try:
            raise ValueError("\x1b[2Jquoted")
        except ValueError:
            logging.getLogger("foreign").error("damaged: %s", "\x1b[1;32mpassed\nwell", exc_info=True)
    finally:
        logging.setLogRecordFactory(before)
        logging.getLogger("foreign").removeHandler(handler)
    assert capsys.readouterr().err == "damaged: \\x1b[1;32mpassed\\nwell\n"


def test_a_mistake_is_one_line():
    assert str(UserError("a\nb\u202e")) == "a\\nb\\u202e"
