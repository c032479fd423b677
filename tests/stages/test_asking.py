from dataclasses import replace

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.data.choices import MultipleChoice
from immunax.data.dialog import Split, ask
from immunax.inner.weighing import Marks
from immunax.judges import evaluate as judges
from immunax.judges.choice import accuracy as choice_accuracy
from immunax.judges.choice import quiz
from immunax.judges.evaluate import Evaluation, Given, held_out
from immunax.judges.refusal import Refusal
from immunax.models.flops import forward_flops
from immunax.models.generate import Decoding
from immunax.models.model import Model
from immunax.runtime import goodput
from immunax.stages.asking import PHASE, accuracy, asked_work, evaluate

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
DIALOGS = tuple(ask(f"how to {'do ' * i}{i}", f"yes, {i * 99}") for i in range(5))
EVALUATION = Evaluation({"refusal": Refusal()}, prompts=5, examples=3, batch_size=2, decoding=Decoding(4))
MATERIAL = held_out(EVALUATION, tiny.tokenizer(), Split(harmful=DIALOGS, retain=DIALOGS[2:]))


def _real(batch):
    """Of a padded batch, each row's tokens and answer tokens, counted one by one."""
    rows = zip(
        batch.segment_ids.reshape(-1, batch.segment_ids.shape[-1]),
        batch.answer_weight.reshape(-1, batch.answer_weight.shape[-1]),
        strict=True,
    )
    return [(int((ids > 0).sum()), int(weights.sum())) for ids, weights in rows if ids.any()]


def _given(ids, members=()):
    def marks(batch):
        return Marks(np.zeros((*members, *batch.tokens.shape[:2])), np.zeros((*members, *batch.tokens.shape[:2]), bool))

    return Given(ids, marks(MATERIAL.harmful), marks(MATERIAL.retain))


def test_prompts_answers_and_given_answers_are_read_once_each():
    ids = np.array([[5, 6, 2, -1], [7, 2, -1, -1], [5, 5, 5, 5], [2, -1, -1, -1], [9, 9, 2, -1]])
    answers = [3, 2, 4, 1, 3]
    prompts = (MATERIAL.prompts.segment_ids > 0).sum(axis=1).tolist()
    read = [(prompt + answer, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    weighed = [*_real(MATERIAL.harmful), *_real(MATERIAL.retain)]
    assert len(weighed) == 6
    found = asked_work(MODEL.config, MATERIAL, _given(ids))
    assert (found.steps, found.tokens) == (5 + 6, sum(tokens for tokens, _ in [*read, *weighed]))
    assert found.flops == pytest.approx(forward_flops(MODEL.config, [*read, *weighed]))
    shapes = MATERIAL.harmful.tokens.size + MATERIAL.retain.tokens.size
    assert found.computed == 5 * (MATERIAL.prompts.tokens.shape[1] + 4) + shapes


def test_members_that_are_asked_together_count_each():
    ids = np.array([[5, 2, -1, -1]] * 5)
    one = asked_work(MODEL.config, MATERIAL, _given(ids))
    asked = MATERIAL._replace(prompts=jax.tree.map(lambda leaf: np.stack([leaf] * 3), MATERIAL.prompts))
    many = asked_work(MODEL.config, asked, _given(np.stack([ids] * 3), (3,)))
    assert many[:3] == tuple(3 * each for each in one[:3])
    assert many.flops == pytest.approx(3 * one.flops)


def test_a_model_scores_what_it_scores_without_a_meter_and_the_accounts_say_what_it_read(tmp_path):
    arguments = EVALUATION, MODEL, PARAMS, tiny.tokenizer(), MATERIAL, jax.random.key(0)
    expected = judges.evaluate(*arguments)
    given = judges.given_by(EVALUATION, MODEL, PARAMS, MATERIAL, jax.random.key(0))
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        found = evaluate(*arguments)
        phase = goodput.phases(tmp_path)[PHASE]
    np.testing.assert_array_equal(found.judged["refusal"], expected.judged["refusal"])
    np.testing.assert_array_equal(found.harmful.nll, expected.harmful.nll)
    assert phase.warm.work == asked_work(MODEL.config, MATERIAL, given)
    assert 0 < phase.warm.seconds <= phase.seconds


def test_items_of_multiple_choice_are_read_too(tmp_path):
    items = [MultipleChoice("the cat", ("sat", "ran"), 0), MultipleChoice("a dog", ("was", "is"), 1)]
    asked = quiz(tiny.tokenizer(), items, 2, 64)
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        found = accuracy(MODEL, PARAMS, asked)
        phase = goodput.phases(tmp_path)[PHASE]
    np.testing.assert_array_equal(found.acc, choice_accuracy(MODEL, PARAMS, asked).acc)
    done = phase.warm.plus(phase.cold).work
    assert (done.steps, done.tokens) == (4, sum(tokens for tokens, _ in _real(asked.batches)))
