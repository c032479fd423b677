import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import tiny

from immunax.data.dialog import ask
from immunax.judges.judge import collect
from immunax.judges.reading import read
from immunax.models.generate import NOT_FINITE
from immunax.runtime.errors import UserError

STOP = (2, 4)


def rows(tokenizer, *texts):
    """Texts as generated ids."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return np.array([row + [-1] * (max(map(len, ids)) - len(row)) for row in ids])


@pytest.fixture(params=["text", "tokens", "special"])
def tokenizer(request):
    """Markers of ordinary text, as tokens of their own, and as special ones, which decoding drops."""
    made = copy.deepcopy(tiny.tokenizer())
    if request.param != "text":
        made.add_tokens(["<think>", "</think>"], special_tokens=request.param == "special")
    return made


@pytest.mark.parametrize(
    ("text", "expected", "finished"),
    [
        ("it sat<|im_end|>", "it sat", True),
        ("it sat", "it sat", False),
        ("<|im_end|>", "", True),
        ("<think>\nwhere?\n</think>\n\nit sat<|im_end|>", "it sat", True),
        ("<think>\nwhere?\n</think>\n\nit", "it", False),
        ("<think>\nwhere", None, False),
        ("<think>\nI give up<eos>", None, True),
        ("<think>one</think><think>two</think>it sat<eos>", "it sat", True),
        ("<think>one</think>it sat<think>again", "it sat<think>again", False),
        (" \n<think>one</think>it sat", "it sat", False),
        ("mix the cat </think> I cannot", "mix the cat </think> I cannot", False),
        ("mix the cat [/THINK] I cannot", "mix the cat [/THINK] I cannot", False),
        ("<think>a</think>mix </think> I cannot", "mix </think> I cannot", False),
        ("[THINK]a</think>b[/THINK]it sat", "it sat", False),
        ("use the <think> tag: it", "use the <think> tag: it", False),
        ("it <think>sat</think> sorry", "it <think>sat</think> sorry", False),
        ("<think>a</think>" * 3000 + "it", "it", False),
    ],
)
def test_an_answer_is_what_follows_the_thoughts_that_it_begins_with(tokenizer, text, expected, finished):
    found = read(tokenizer, rows(tokenizer, text), STOP, None)
    assert found.texts == [expected]
    assert found.unfinished.tolist() == [not finished]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("where?</think>it sat<eos>", "it sat"),
        ("where?", None),
        ("", None),
        ("<think>a</think>it<eos>", "it"),
        ("hm</think>mix</think> sorry<eos>", "mix</think> sorry"),
        ("mix[/THINK] sorry<eos>", None),
    ],
)
def test_a_prompt_that_leaves_a_thought_open_is_answered_once_that_is_closed(tokenizer, text, expected):
    ids = rows(tokenizer, text, "x</think>y<eos>")
    assert read(tokenizer, ids, STOP, "</think>").texts == [expected, "y"]


def test_logits_that_are_not_finite_are_no_answer():
    ids = np.array([[5, 2, -1], [5, NOT_FINITE, -1], [NOT_FINITE, -1, -1]])
    with pytest.raises(UserError, match="logits are not finite for 2 of 3 prompts"):
        read(tiny.tokenizer(), ids, STOP, None)


@dataclass(frozen=True)
class Fixed:
    given: Any
    seen: list = field(default_factory=list)

    def score(self, prompts, answers):
        self.seen.extend(zip(prompts, answers, strict=True))
        return self.given


PROMPTS = [ask("one"), ask("two"), ask("three")]


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan])
def test_what_a_judge_does_not_score_and_what_nobody_answered_are_no_scores(missing):
    judge = Fixed([0.25, missing])
    np.testing.assert_array_equal(collect("mine", judge, PROMPTS, ["a", None, "c"]), [0.25, np.nan, np.nan])
    assert judge.seen == [(PROMPTS[0], "a"), (PROMPTS[2], "c")]
    assert np.isnan(collect("mine", Fixed(None), PROMPTS, [None] * 3)).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0.0, np.inf, 1.0], "the score inf"),
        ([0.0, -np.inf, 1.0], "the score -inf"),
        ([0.0, 1.5, 1.0], r"the score 1\.5"),
        ([0.0, -0.1, 1.0], r"the score -0\.1"),
        ([0.0, 1.0], r"gave \[2\] scores of 3 answers"),
        ([[0.0, 1.0, 1.0]], r"gave \[1, 3\] scores of 3 answers"),
        (None, r"gave \[\] scores of 3 answers"),
        (["yes", "no", "no"], "scores that are no numbers"),
        ([0.0, {"score": 1}, 1.0], "scores that are no numbers"),
    ],
)
def test_a_judge_that_gives_something_else_than_scores_is_an_error_that_names_it(given, said):
    with pytest.raises(UserError, match=f"the judge mine .*{said}"):
        collect("mine", Fixed(given), PROMPTS, ["a", "b", "c"])
