from dataclasses import replace

import jax
import numpy as np
import small
import tiny

from immunax.data.dialog import Split, ask
from immunax.judges.evaluate import Evaluation, batch_count, evaluate, held_out
from immunax.judges.exact import exact_matches
from immunax.models.generate import Decoding, generate
from immunax.models.model import Model

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256))
PARAMS = small.params(0, MODEL)
QUESTIONS = ("one", "another", "a third question")


def _material(evaluation, retain):
    return held_out(evaluation, tiny.tokenizer(), Split(harmful=(ask("how", "so"),), retain=retain))


def _decoded(length):
    material = held_out(Evaluation(), tiny.tokenizer(), Split(harmful=tuple(map(ask, QUESTIONS))))
    decode = jax.jit(lambda tokens, segments: generate(MODEL, PARAMS, tokens, segments, (), Decoding(length)))
    return np.asarray(decode(*material.prompts))


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
    assert exact_matches(MODEL, PARAMS, batch).tolist() == [1, 1, 1]
    # The last token of one and the first of another.
    batch.answer_label[0, 1, 3] = (ids[1, 3] + 1) % 304
    batch.answer_label[1, 0, 0] = (ids[2, 0] + 1) % 304
    assert exact_matches(MODEL, PARAMS, batch).tolist() == [1, 0, 0]


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
        assert len(advanced) == batch_count(evaluation, material)
        assert (scores.exact is not None) == exact
    assert scores.exact.shape == (3,)
