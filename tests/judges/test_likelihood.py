from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import small
import tiny

from immunax.data.dialog import Split, ask
from immunax.judges.evaluate import Evaluation, batch_count, evaluate, held_out
from immunax.judges.likelihood import likelihood
from immunax.judges.refusal import Refusal
from immunax.models.generate import Decoding
from immunax.models.model import Model

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256))
PARAMS = jax.jit(MODEL.init)(jax.random.key(0))
HARMFUL = tuple(ask(f"how to {i}", "yes " * (i + 1)) for i in range(5))
SPLIT = Split(harmful=(*HARMFUL, HARMFUL[0]), retain=(ask("what", "that"),))


def _material(evaluation):
    return held_out(evaluation, tiny.tokenizer(), SPLIT)


def test_each_examples_likelihood_is_the_sum_over_its_own_answer_tokens():
    material = _material(Evaluation(examples=5, batch_size=2))
    found = likelihood(MODEL, PARAMS, material.harmful)
    assert len(found.nll) == 5
    for row, (nll, count) in enumerate(zip(*found, strict=True)):
        batch = jax.tree.map(lambda leaf, row=row: leaf[row // 2, row % 2], material.harmful)
        used = int(batch.segment_ids.sum())
        log_probs = jax.nn.log_softmax(small.plain_logits(MODEL, PARAMS, batch.tokens[:used]), axis=-1)
        expected = -sum(log_probs[t, batch.tokens[t + 1]] for t in range(used - int(count) - 1, used - 1))
        np.testing.assert_allclose(nll, expected, rtol=1e-4)


def test_perplexity_is_the_exponential_of_the_mean_over_tokens():
    found = likelihood(MODEL, PARAMS, _material(Evaluation(examples=5)).harmful)
    assert abs(found.nll.sum() / found.tokens.sum() - np.log(304)) < 1.0


def test_an_evaluation_judges_each_distinct_prompt_once_whatever_the_batch_size():
    kept = []
    for size in (2, 5):
        evaluation = Evaluation({"refusal": Refusal()}, prompts=9, batch_size=size, decoding=Decoding(3))
        material = _material(evaluation)
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
        assert scores.judged["refusal"].shape == (5,)
        assert len(advanced) == batch_count(evaluation, MODEL, material)
        kept.append(scores)
    np.testing.assert_allclose(kept[0].harmful.nll, kept[1].harmful.nll, rtol=1e-5)
    np.testing.assert_array_equal(kept[0].judged["refusal"], kept[1].judged["refusal"])
    assert jnp.isfinite(kept[0].retain.nll).all()
