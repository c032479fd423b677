from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import small
import tiny

from immunax.data.dialog import Split, ask
from immunax.judges import evaluate
from immunax.judges.evaluate import Evaluation, batch_count, given_by, held_out
from immunax.judges.rows import SHARE, memory_bytes, row_bytes, rows_at_once
from immunax.models.generate import Decoding, generate
from immunax.models.model import Model

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256), dtype="bfloat16")
QUESTIONS = tuple(ask(f"question {each}", "so") for each in range(7))


def test_rows_take_no_more_than_their_share_of_an_accelerator_and_a_cpu_is_asked_for_nothing():
    each = row_bytes(MODEL, 64, 32)
    assert rows_at_once(MODEL, 8, 64, 32, int(100 * each / SHARE)) == 100
    assert rows_at_once(MODEL, 8, 64, 32, each) == 8
    assert rows_at_once(MODEL, 8, 64, 32, None) == 8
    assert memory_bytes() is None


def test_a_row_is_counted_as_no_less_than_what_one_more_of_them_takes():
    model = replace(MODEL, dtype="float32")  # a CPU computes bfloat16 in float32, with copies
    weights = jax.eval_shape(model.init, jax.random.key(0))

    def temporaries(rows):
        prompts = jax.ShapeDtypeStruct((rows, 64), jnp.int32)
        program = jax.jit(lambda *args: generate(model, *args, (), Decoding(32))).lower(weights, prompts, prompts)
        return program.compile().memory_analysis().temp_size_in_bytes

    assert 0.3 * row_bytes(model, 64, 32) < (temporaries(48) - temporaries(16)) / 32 < row_bytes(model, 64, 32)


def test_an_accelerator_answers_all_at_once_in_equal_turns_but_for_sampled_answers(monkeypatch):
    evaluation = Evaluation({"any": None}, batch_size=2, decoding=Decoding(4))
    material = held_out(evaluation, tiny.tokenizer(), Split(harmful=QUESTIONS))._replace(harmful=None)
    weights = small.params(0, replace(MODEL, dtype="float32"))

    def answered(evaluation):
        turns = []
        given = given_by(evaluation, MODEL, weights, material, jax.random.key(0), lambda: turns.append(1))
        assert len(turns) == batch_count(evaluation, MODEL, material)
        return len(turns), given.ids

    sampled = replace(evaluation, decoding=Decoding(4, temperature=1.0))
    width = material.prompts.tokens.shape[1]
    before = answered(evaluation), answered(sampled)
    assert [turns for turns, _ in before] == [4, 4]
    for rows, turns in ((5, 2), (9, 1)):
        monkeypatch.setattr(evaluate, "memory_bytes", lambda rows=rows: int(rows * row_bytes(MODEL, width, 4) / SHARE))
        after = answered(evaluation), answered(sampled)
        assert [turns for turns, _ in after] == [turns, 4]
        for (_, there), (_, here) in zip(before, after, strict=True):
            np.testing.assert_array_equal(there, here)
