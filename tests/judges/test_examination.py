from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny

from immunax.data.batches import pad, stack
from immunax.data.chat import encode_all
from immunax.data.dialog import Split, ask
from immunax.data.packing import Layout, fit_padded
from immunax.data.prompts import Prompts
from immunax.inner.population import map_members
from immunax.inner.weighing import Weigh
from immunax.judges.evaluate import Evaluation, batch_count, evaluate, held_out
from immunax.judges.examination import Answer, answer_all, as_computed, weigh_all
from immunax.judges.likelihood import by_example
from immunax.models.generate import Decoding, generate
from immunax.models.lora import LoraSpec, init
from immunax.models.model import Model

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256))
PARAMS = small.params(0, MODEL)
QUESTIONS = ("one", "another", "a third question")
STOP, LONG = (5, 9), Decoding(6)


def _material(evaluation, retain):
    return held_out(evaluation, tiny.tokenizer(), Split(harmful=(ask("how", "so"),), retain=retain))


def _decoded(length):
    material = held_out(Evaluation(), tiny.tokenizer(), Split(harmful=tuple(map(ask, QUESTIONS))))
    decode = jax.jit(lambda tokens, segments: generate(MODEL, PARAMS, tokens, segments, (), Decoding(length)))
    return np.asarray(decode(*material.prompts))


def _exact(batches):
    return by_example(weigh_all(partial(Weigh(MODEL), PARAMS), batches, lambda: None), batches)[1].tolist()


def test_only_what_greedy_decoding_writes_to_the_last_token_is_an_exact_match():
    ids = _decoded(4)
    material = _material(Evaluation(batch_size=2), tuple(ask(question, "x" * 3) for question in QUESTIONS))
    batch = jax.tree.map(lambda leaf: leaf.copy(), material.retain)
    for row, answer in enumerate(ids):
        k, b = divmod(row, 2)
        start = int(batch.answer_index[k, b, 0]) + 1
        assert batch.answer_weight[k, b].sum() == 4
        batch.tokens[k, b, start : start + 4] = answer
        batch.answer_label[k, b, :4] = answer
    assert _exact(batch) == [1, 1, 1]
    # The last token of one and the first of another.
    batch.answer_label[0, 1, 3] = (ids[1, 3] + 1) % 304
    batch.answer_label[1, 0, 0] = (ids[2, 0] + 1) % 304
    assert _exact(batch) == [1, 0, 0]


def test_an_evaluation_counts_exact_matches_only_when_asked_to():
    retain = tuple(ask(question, "x") for question in QUESTIONS)
    for exact in (False, True):
        evaluation = Evaluation(batch_size=2, decoding=Decoding(2), exact=exact)
        material = _material(evaluation, retain)
        advanced = []
        scores = evaluate(
            evaluation,
            MODEL,
            PARAMS,
            tiny.tokenizer(),
            material,
            jax.random.key(0),
            lambda seen=advanced: seen.append(1),
        )
        assert len(advanced) == batch_count(evaluation, MODEL, material)
        assert (scores.exact is not None) == exact
    assert scores.exact.shape == (3,)


def _members(count):
    weights = [small.params(seed, MODEL) for seed in range(count)]
    prompts = held_out(Evaluation(), tiny.tokenizer(), Split(harmful=tuple(map(ask, QUESTIONS)))).prompts
    asked = Prompts(*(np.stack([part] * count) for part in prompts)), jax.random.split(jax.random.key(1), count)
    return weights, jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights), asked


@pytest.mark.parametrize("decoding", [LONG, Decoding(6, temperature=1.0)])
def test_members_answer_as_each_does_alone_bit_for_bit(decoding):
    weights, stacked, asked = _members(2)
    answer = Answer(MODEL, STOP, decoding)
    own = stacked, *asked
    together = jax.jit(lambda own: map_members(lambda member, _: answer(member[0], member[1:]), own, (), chunk=1))(own)
    for index, alone in enumerate(weights):
        one = jax.tree.map(lambda leaf, index=index: leaf[index], asked)
        np.testing.assert_array_equal(together[index], answer(alone, one))


def _chooses_between(function, own, shape):
    """Whether a program chooses between arrays of a shape, or of that shape for each member."""
    lines = jax.jit(function).lower(own).as_text().splitlines()
    name = "x".join(map(str, shape)) + "xf32>"
    return any("stablehlo.select" in line and name in line for line in lines)


@pytest.mark.parametrize("count", [1, 3])
def test_no_cache_is_chosen_between_at_a_token_however_many_members_there_are(count):
    _, stacked, asked = _members(count)
    rows, width = asked[0].tokens.shape[1:]
    c, own = MODEL.config, (stacked, *asked)
    cache = (c.n_layers, rows, c.n_kv_heads, width + 6, c.head_dim)

    def one(member, _=None):
        return Answer(MODEL, STOP, LONG)(member[0], member[1:])

    assert not _chooses_between(lambda own: map_members(one, own, (), chunk=1), own, cache)
    # What this guards against: one loop that each member ends for itself.
    assert _chooses_between(jax.vmap(one), own, cache)


def test_an_evaluation_in_bfloat16_reads_weights_that_were_cast_once():
    model = replace(MODEL, dtype="bfloat16")
    weights = as_computed(model, PARAMS)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(weights["layers"]["mlp"])} == {"bfloat16"}
    same = zip(jax.tree.leaves(as_computed(MODEL, PARAMS)), jax.tree.leaves(PARAMS), strict=True)
    assert all(given is held for given, held in same)
    batch = jax.tree.map(lambda leaf: leaf[0], _material(Evaluation(), (ask("one", "x"),)).retain)
    np.testing.assert_allclose(Weigh(model)(weights, batch).nll, Weigh(model)(PARAMS, batch).nll, rtol=1e-2)
    adapted = init(jax.random.key(0), PARAMS, LoraSpec(2))
    assert as_computed(model, adapted).lora is adapted.lora
    hlo = jax.jit(partial(Answer(model, STOP, LONG))).lower(weights, _one()).as_text()
    kernel = "x".join(map(str, PARAMS["layers"]["mlp"]["up_proj"]["kernel"].shape[1:]))
    assert f"tensor<{kernel}xf32>" not in hlo


def _one():
    return jax.tree.map(lambda leaf: leaf[0], _members(1)[2])


def test_wider_rows_change_no_score_beyond_rounding():
    retain = tuple(ask(question, "x" * (place + 1)) for place, question in enumerate(QUESTIONS))
    examples, _ = encode_all(tiny.tokenizer(), retain, 192)
    tight, wide = (stack([pad(examples, layout)]) for layout in (fit_padded([examples]), Layout(4, 128, 32)))
    found = [by_example(weigh_all(partial(Weigh(MODEL), PARAMS), each, lambda: None), each) for each in (tight, wide)]
    np.testing.assert_allclose(found[0][0].nll, found[1][0].nll, rtol=1e-5)
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_batch_is_asked_before_the_answers_to_the_one_before_it_are_fetched():
    prompts = held_out(Evaluation(), tiny.tokenizer(), Split(harmful=tuple(map(ask, QUESTIONS)))).prompts
    seen, answer = [], partial(Answer(MODEL, STOP, LONG), PARAMS)

    def asked(each):
        seen.append("asked")
        return answer(each)

    found = answer_all(asked, prompts, jax.random.key(0), 1, lambda: seen.append("fetched"))
    assert seen == ["asked", "asked", "fetched", "asked", "fetched", "fetched"]
    whole = answer_all(answer, prompts, jax.random.key(0), 3, lambda: None)
    np.testing.assert_array_equal(found, whole)


def test_what_is_asked_beside_an_exam_has_its_shapes_where_that_costs_little_and_scores_the_same():
    retain = tuple(ask(question, "x" * 30) for question in (*QUESTIONS, "four"))
    evaluation = Evaluation(examples=4, batch_size=3)
    exam = _material(evaluation, retain)
    assert (evaluation.rows, exam.retain.tokens.shape[:2]) == (2, (2, 2))
    fewer = tuple(ask(f"{question} and more", "x" * 18) for question in QUESTIONS[1:])
    alone, beside = (
        held_out(evaluation, tiny.tokenizer(), Split(harmful=(ask("how", "so"),), retain=fewer), each)
        for each in (None, exam)
    )
    assert alone.retain.tokens.shape != exam.retain.tokens.shape
    assert beside.retain.tokens.shape[1:] == exam.retain.tokens.shape[1:]
    assert beside.prompts.tokens.shape[1] == exam.prompts.tokens.shape[1]
    scores = [
        evaluate(evaluation, MODEL, PARAMS, tiny.tokenizer(), each, jax.random.key(0)) for each in (alone, beside)
    ]
    np.testing.assert_allclose(scores[0].retain.nll, scores[1].retain.nll, rtol=1e-5)
    assert Evaluation(examples=2, batch_size=8).rows == 8
    assert Evaluation(examples=40, batch_size=28).rows == 20
