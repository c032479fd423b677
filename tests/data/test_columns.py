import pytest

from immunax.data.columns import WantedColumns, cell, chat, holds, text
from immunax.data.dialog import Dialog, Message
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
        ("text", "holds a str; expected a list of messages"),
        ([], "holds an empty list; expected a list of messages"),
        (["text"], "message 1 is a str; expected role and content"),
        ([{"role": "user", "content": None}], "message 1 has no text"),
        ([{"role": "user", "content": []}], "message 1 has no text"),
        ([{"role": "usr", "content": "u"}], "role 'usr' is not supported.*Did you mean 'user'"),
        (
            [{"role": "user", "content": "u"}, {"role": "developer", "content": "d"}],
            "message 2: role 'developer' is not",
        ),
        ([{"role": "tool", "content": "3"}], "role 'tool' is not supported; supported are system, user, assistant"),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
            "message 1 has tool_calls, which is not",
        ),
        ([{"from": "observation", "value": "3"}], "role 'observation' is not supported; supported are human"),
        ([{"from": "human", "content": "u"}], "message 1 has no text"),
        (
            [{"role": "user", "content": [{"type": "image", "url": "x"}]}],
            "a part of type 'image', which is not supported",
        ),
        ([{"role": "user", "content": "\ud83d"}], "character 1 is half of a surrogate pair"),
    ],
)
def test_malformed_messages_are_a_user_error(messages, error):
    with pytest.raises(UserError, match=error):
        chat({"messages": messages}, "messages", "set, row 1")


@pytest.mark.parametrize(
    "turns",
    [
        [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}],
        [{"from": "user", "value": "u"}, {"from": "assistant", "value": "a"}],
        [
            {"role": "user", "content": [{"type": "text", "text": "u"}]},
            {"role": "assistant", "content": [{"text": "a"}]},
        ],
        [{"role": "user", "content": "u", "name": "bob"}, {"role": "assistant", "content": "a", "weight": 0}],
    ],
)
def test_sharegpt_and_parts_of_text_are_messages_too(turns):
    assert chat({"messages": turns}, "messages", "set") == Dialog((Message("user", "u"),), "a")


@pytest.mark.parametrize("blank", ["", " \n"])
def test_a_prompt_with_a_blank_turn_is_no_dialog_and_a_blank_system_message_no_message(blank):
    user, answer = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
    for turns in (
        [{"role": "user", "content": blank}, answer],
        [{"role": "user", "content": blank}],
        [user, {"role": "assistant", "content": blank}, user, answer],
        [{"role": "system", "content": blank}, answer],
        [answer],
    ):
        assert chat({"m": turns}, "m", "set") is None
    assert chat({"m": [{"role": "system", "content": blank}, user, answer]}, "m", "set") == Dialog(
        (Message("user", "u"),), "a"
    )
    assert chat({"m": None}, "m", "set") is None


def test_parts_of_text_are_one_text():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert chat({"m": [{"role": "user", "content": parts}]}, "m", "set").question == "one two"


def test_half_of_a_surrogate_pair_is_named_by_its_column():
    with pytest.raises(UserError, match="set, row 4: column 'n': character 3 is half of a surrogate pair"):
        text({"n": "ab\udc00"}, "n", "set, row 4")


def test_a_column_that_some_rows_leave_out_is_empty_there_and_one_that_all_do_is_an_error():
    wanted = WantedColumns(["a", "b.c"], "set")
    assert wanted.fill({"a": 1}) == {"a": 1, "b.c": None}
    assert wanted.unseen == {"b.c"}
    with pytest.raises(UserError, match=r"set: no column 'b\.c'; it has a"):
        wanted.check()
    row = {"a": 1, "b": {"c": 2}}
    assert wanted.fill(row) is row
    wanted.check()
