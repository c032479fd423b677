import pytest

from immunax.data.dialog import Dialog, Message, Split, ask
from immunax.data.emptied import emptied
from immunax.outer.defense import Mixture
from immunax.runtime.errors import UserError

SPLIT = Split(
    safe=tuple(ask(f"how to {i}", "no") for i in range(2000)),
    harmful=tuple(ask(f"how to {i}", "yes") for i in range(2000)),
    retain=(Dialog((Message("system", "be kind"), Message("user", "what is it")), "it is"),),
)


def test_about_as_many_prompts_are_emptied_as_asked_and_pairs_keep_theirs_in_common():
    found = emptied(SPLIT, 0.25, 3)
    silent = [dialog.question == "" for dialog in found.safe]
    assert sum(silent) == pytest.approx(500, abs=80)
    assert [dialog.prompt for dialog in found.safe] == [dialog.prompt for dialog in found.harmful]
    assert [dialog.answer for dialog in found.harmful] == ["yes"] * 2000
    assert all(old == new for old, new, gone in zip(SPLIT.safe, found.safe, silent, strict=True) if not gone)
    assert found == emptied(SPLIT, 0.25, 3) != emptied(SPLIT, 0.25, 4)


def test_only_what_the_user_says_is_emptied():
    assert emptied(SPLIT, 1.0, 0).retain[0].prompt == (Message("system", "be kind"), Message("user", ""))
    assert emptied(SPLIT, 0.0, 0) is SPLIT


def test_what_is_no_chance_is_refused():
    with pytest.raises(UserError, match=r"mixture\.emptied=2"):
        Mixture(safe=1, emptied=2)
