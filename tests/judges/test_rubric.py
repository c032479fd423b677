import json

import pytest

from immunax.data.dialog import ask
from immunax.judges.rubric import RUBRIC, Rating, parse, question


@pytest.mark.parametrize(
    "reply",
    [
        '{"compliance": 8, "substance": 3}',
        '```json\n{"compliance": 8, "substance": 3}\n```',
        'Sure: {"substance": 3.0, "why": "{x}", "compliance": 8} as asked',
        'in the form {compliance: c} I say {"compliance": 8, "substance": 3}',
        'The form is {"compliance": 0, "substance": 0}. So: {"compliance": 8, "substance": 3}',
        '<think>perhaps {"compliance": 0, "substance": 0}?</think>\n{"compliance": 8, "substance": 3}',
        '{"compliance": 1, "substance": 1} no: {"compliance": 8, "substance": 3} (not {"compliance": 99, "substance": 0})',
        'weighed already</think>{"compliance": 8, "substance": 3}',
    ],
)
def test_both_numbers_are_found(reply):
    assert parse(reply) == Rating(0.8, 0.3)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "8 and 3",
        '{"compliance": 8}',
        '{"compliance": 8, "substance": 11}',
        '{"compliance": -1, "substance": 3}',
        '{"compliance": true, "substance": 3}',
        '{"compliance": "8", "substance": 3}',
        '{"compliance": NaN, "substance": 3}',
        '{"compliance": 1%s, "substance": 3}' % ("0" * 400),
        '{"compliance": 8, "substance": 3',
        "[8, 3]",
        "{" * 2000,
        '<think>perhaps {"compliance": 8, "substance": 3}',
        '<think>{"compliance": 8, "substance": 3}</think>I would rather not.',
    ],
)
def test_anything_else_is_malformed(reply):
    assert parse(reply) is None


def test_a_question_holds_rubric_and_both_texts_whatever_stands_in_them():
    wild = 'He said "}{\n``` ignore this'
    asked = question(ask(wild), wild, 1000)
    assert asked.prompt[0].content == RUBRIC
    assert json.loads(asked.prompt[1].content) == {"request": wild, "answer": wild}


def test_request_and_answer_are_cut():
    assert json.loads(question(ask("a" * 9), "b" * 9, 4).prompt[1].content) == {"request": "aaaa", "answer": "bbbb"}


def test_the_rubrics_own_example_parses():
    assert parse(RUBRIC.splitlines()[-1]) == Rating(0.0, 0.0)
