import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from immunax.models.generate import Decoding, generate
from immunax.models.steered import Perturbation, Steered, prompt_keys

PARAMS = small.params()
L, D = small.CONFIG.n_layers, small.CONFIG.d_model
MARKS = jnp.array([7, 7, 7], jnp.int32)
TOKENS = jnp.array([[5, 6, 7, 7, 7, 9, 4, 4, 4], [8, 9, 7, 7, 5, 7, 7, 7, 3]], jnp.int32)
RUNS = ((0, 2), (1, 5))
ONES, PLACES = jnp.ones_like(TOKENS), jnp.arange(9)[None].repeat(2, 0)


def vectors(seed, *shape):
    return 0.3 * jax.random.normal(jax.random.key(seed), (*shape, D))


def steered(prompt=None, offsets=None, keys=()):
    prompt = jnp.zeros((1, 3, D)) if prompt is None else prompt
    offsets = jnp.zeros((L + 1, D)) if offsets is None else offsets
    return Steered(PARAMS, prompt, offsets, MARKS, jnp.asarray(keys, jnp.uint32))


def test_offsets_are_a_perturbation_that_is_the_same_at_every_token():
    offsets = vectors(0, L + 1)
    whole = jnp.broadcast_to(offsets[:, None, None], (L + 1, 2, 9, D))
    found = small.MODEL.apply(steered(offsets=offsets), TOKENS, ONES, PLACES, capture=True)
    known = small.MODEL.apply(PARAMS, TOKENS, ONES, PLACES, capture=True, perturbation=Perturbation(whole))
    np.testing.assert_allclose(found.hidden, known.hidden, atol=1e-5)
    np.testing.assert_allclose(found.residuals, known.residuals, atol=1e-5)


@pytest.mark.parametrize("own", [False, True])
def test_a_continuous_prompt_lies_on_the_run_of_its_marks_wherever_that_stands(own):
    prompt = vectors(1, 2 if own else 1, 3)
    keys = prompt_keys(TOKENS, MARKS)[::-1] if own else ()
    added = jnp.zeros((L + 1, 2, 9, D))
    for row, start in RUNS:
        added = added.at[0, row, start : start + 3].set(prompt[1 - row if own else 0])
    found = small.MODEL.apply(steered(prompt, keys=keys), TOKENS, ONES, PLACES)
    known = small.MODEL.apply(PARAMS, TOKENS, ONES, PLACES, perturbation=Perturbation(added))
    np.testing.assert_allclose(found.hidden, known.hidden, atol=1e-5)


def test_a_prompt_that_none_was_sought_for_is_read_as_it_is_and_its_answer_changes_no_key():
    keys = prompt_keys(TOKENS, MARKS)
    assert len({int(key) for key in keys}) == 2
    longer = jnp.concatenate([TOKENS, small.tokens(2, 4)], axis=1)
    np.testing.assert_array_equal(prompt_keys(longer, MARKS), keys)
    added = steered(vectors(1, 1, 3), keys=keys[:1]).embedded(TOKENS)
    assert np.abs(added[0]).max() > 0
    assert not added[1].any()


def test_of_a_run_that_is_too_long_the_last_tokens_count():
    row = jnp.array([[7, 7, 7, 7, 7, 2]], jnp.int32)
    prompt = vectors(4, 1, 3)
    known = jnp.zeros((1, 6, D)).at[0, 2:5].set(prompt[0])
    np.testing.assert_array_equal(steered(prompt).embedded(row), known)


def test_generation_is_steered_as_whole_passes_are():
    found = steered(vectors(2, 1, 3), vectors(3, L + 1))
    answers = generate(small.MODEL, found, TOKENS, ONES, (), Decoding(5))
    for row, answer in zip(TOKENS, answers, strict=True):
        logits = small.plain_logits(small.MODEL, found, [*row, *answer])
        np.testing.assert_array_equal(jnp.argmax(logits, axis=-1)[len(row) - 1 : -1], answer)
    plain = generate(small.MODEL, PARAMS, TOKENS, ONES, (), Decoding(5))
    assert not np.array_equal(plain, answers)


def test_vectors_of_zero_change_nothing():
    found, plain = (small.MODEL.apply(each, TOKENS, ONES, PLACES).hidden for each in (steered(), PARAMS))
    np.testing.assert_allclose(found, plain, atol=1e-6)
