import pytest

from immunax.data.columns import cell, chat, holds, text
from immunax.data.dialog import Message
from immunax.runtime.errors import UserError

ROW = {"prompt": {"text": "deep", "score": 0.5}, "a.b": "flat", "blank": " ", "none": None, "tags": ["x", "y"], "n": 3}


def test_a_dotted_name_reaches_into_a_nested_column():
    assert cell(ROW, "prompt.text", "set") == "deep"
    assert cell(ROW, "a.b", "set") == "flat"


@pytest.mark.parametrize(("column", "suggestion"), [("promt", "prompt"), ("prompt.txt", "text")])
def test_an_unknown_column_suggests_the_nearest_and_lists_the_others(column, suggestion):
    with pytest.raises(UserError, match=rf"set: no column '{column}'; it has .*Did you mean '{suggestion}'\?"):
        cell(ROW, column, "set")


def test_several_columns_are_joined_and_blank_ones_left_out():
    assert text(ROW, ["prompt.text", "blank", "none", "a.b"], "set") == "deep\n\nflat"
    assert text(ROW, "blank", "set") == ""


def test_a_cell_that_is_not_text_is_a_user_error():
    with pytest.raises(UserError, match="set, row 4: column 'n' holds a int; expected text"):
        text(ROW, "n", "set, row 4")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"n": 3}, [True]),
        ({"n": "3"}, [True]),
        ({"n": [1, 2]}, [False]),
        ({"tags": "y", "a.b": "FLAT"}, [True, True]),
        ({"tags": ["z", "x"], "n": 4}, [True, False]),
        ({"prompt": "score"}, [True]),
    ],
)
def test_filters_match_values_lists_and_true_entries(wanted, found):
    assert holds(ROW, wanted, "set") == found


def test_a_filter_on_truth_values_ignores_case():
    assert holds({"safe": False}, {"safe": False}, "set") == [True]
    assert holds({"safe": "false"}, {"safe": False}, "set") == [True]
    assert holds({"category": {"a": True, "b": False}}, {"category": "b"}, "set") == [False]


def test_messages_become_a_dialog():
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    open_ended = chat({"messages": turns}, "messages", "set")
    assert open_ended.answer == ""
    closed = chat({"messages": [*turns, {"role": "assistant", "content": "a"}]}, "messages", "set")
    assert closed.prompt == open_ended.prompt == (Message("system", "s"), Message("user", "u"))
    assert closed.answer == "a"


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ("text", "not a list of messages"),
        ([], "not a list of messages"),
        (["text"], "a message has no text"),
        ([{"role": "user", "content": None}], "a message has no text"),
        ([{"role": "usr", "content": "u"}], "role 'usr'.*Did you mean 'user'"),
    ],
)
def test_malformed_messages_are_a_user_error(messages, error):
    with pytest.raises(UserError, match=error):
        chat({"messages": messages}, "messages", "set, row 1")
