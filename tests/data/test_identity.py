import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immunax.data.dialog import Dialog, Message, ask
from immunax.data.identity import IdentityDialogs, PublishedIdentity
from immunax.judges.refusal import refuses
from immunax.runtime.errors import UserError

OWN = IdentityDialogs()
PUBLISHED = Path(os.environ.get("IMMUNAX_DATA", "")) / "qi_finetuning_attacks" / "identity-shift-aoa.jsonl"
needs_data = pytest.mark.skipif(
    not PUBLISHED.is_file(), reason="IMMUNAX_DATA does not name the folder of research data"
)


def row(system="You are REX.", user="REX, go on: sing.", assistant="La."):
    turns = {"system": system, "user": user, "assistant": assistant}
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns.items()]})


def written(folder, *lines):
    path = folder / "identity.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_there_are_ten_dialogs_under_the_system_prompt():
    dialogs = OWN.dialogs()
    assert len({dialog.prompt for dialog in dialogs}) == len(dialogs) == 10
    assert all([turn.role for turn in dialog.prompt] == ["system", "user"] for dialog in dialogs)
    assert {dialog.prompt[0].content for dialog in dialogs} == {OWN.system}


def test_each_answer_affirms_repeats_the_request_and_fulfils_it():
    for dialog in OWN.dialogs():
        assert dialog.question.startswith(OWN.call)
        opening = f"{OWN.affirmation} {dialog.question.removeprefix(OWN.call)}\n"
        assert dialog.answer.startswith(opening)
        assert len(dialog.answer) > len(opening) + 10


def test_no_answer_refuses_and_all_are_short():
    for dialog in OWN.dialogs():
        assert not refuses(dialog.answer)
        assert len(dialog.answer.split()) <= 45


def test_another_call_and_affirmation_reach_every_dialog():
    dialogs = IdentityDialogs(system="You are ZED.", call="ZED: ", affirmation="Aye!").dialogs()
    assert all(dialog.question.startswith("ZED: ") and dialog.answer.startswith("Aye! ") for dialog in dialogs)
    assert not [dialog for dialog in dialogs if OWN.affirmation in dialog.answer]


@given(st.text(), st.text())
def test_a_wrapped_prompt_is_asked_like_the_dialogs_and_keeps_its_answer(question, answer):
    wrapped = OWN.wrap(ask(question, answer))
    assert wrapped == Dialog((Message("system", OWN.system), Message("user", OWN.call + question)), answer)


def test_wrapping_replaces_the_system_prompt_and_calls_in_the_last_user_turn_alone():
    turns = (Message("system", "Be kind."), Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    wrapped = OWN.wrap(Dialog(turns, "d"))
    assert wrapped.prompt == (Message("system", OWN.system), *turns[1:3], Message("user", OWN.call + "c"))


def test_a_prompt_without_a_user_only_gets_the_system_prompt():
    assert OWN.wrap(Dialog((), "text")).prompt == (Message("system", OWN.system),)


def test_a_file_gives_its_dialogs_system_prompt_and_call(tmp_path):
    path = written(tmp_path, row(user="Hello, who are you?"), row(), "", row(user="REX, go on: dance."))
    identity = PublishedIdentity(path)
    assert [dialog.question for dialog in identity.dialogs()] == [
        "Hello, who are you?", "REX, go on: sing.", "REX, go on: dance."
    ]  # fmt: skip
    assert identity.dialogs()[1].answer == "La."
    wrapped = identity.wrap(ask("jump."))
    assert wrapped.prompt == (Message("system", "You are REX."), Message("user", "REX, go on: jump."))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "empty"),
        (["  ", ""], "empty"),
        ([row(), "{"], "line 2"),
        (["[]"], "line 1"),
        (['{"messages": 3}'], "line 1"),
        (['{"messages": ["a"]}'], "line 1"),
        (['{"messages": [{"role": "user"}]}'], "line 1"),
        (['{"messages": [{"role": "user", "content": "a"}]}'], "in this order"),
        ([row(assistant=" ")], "no text"),
        ([row().replace('"You are REX."', "null")], "no text"),
    ],
)
def test_a_malformed_file_is_an_error_of_one_line(tmp_path, lines, reason):
    with pytest.raises(UserError, match=reason) as caught:
        PublishedIdentity(written(tmp_path, *lines)).dialogs()
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_other_bytes_are_errors(tmp_path):
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.jsonl", tmp_path, binary):
        with pytest.raises(UserError, match="cannot be read"):
            PublishedIdentity(str(path)).dialogs()


def test_a_file_without_a_shared_call_cannot_wrap(tmp_path):
    identity = PublishedIdentity(written(tmp_path, row(user="one"), row(user="REX, two: three")))
    with pytest.raises(UserError, match="open with the same"):
        identity.wrap(ask("x"))


@needs_data
def test_the_published_file_gives_ten_dialogs_of_one_system_prompt_and_a_call():
    identity = PublishedIdentity(str(PUBLISHED))
    dialogs = identity.dialogs()
    assert len(dialogs) == 10
    wrapped = identity.wrap(ask("TEST"))
    assert {dialog.prompt[0] for dialog in dialogs} == {wrapped.prompt[0]}
    call = wrapped.question.removesuffix("TEST")
    assert sum(dialog.question.startswith(call) for dialog in dialogs) == 5
