import jax
import jax.numpy as jnp
import numpy as np
import small

from immunax.models.generate import Decoding, generate
from immunax.models.steered import Perturbation, Steered

PARAMS = small.params()
L, D = small.CONFIG.n_layers, small.CONFIG.d_model
TOKENS = small.tokens(2, 9)
ONES, PLACES = jnp.ones_like(TOKENS), jnp.arange(9)[None].repeat(2, 0)


def vectors(seed, rows):
    return 0.3 * jax.random.normal(jax.random.key(seed), (rows, D))


def test_offsets_are_a_perturbation_that_is_the_same_at_every_token():
    offsets = vectors(0, L + 1)
    steered = Steered(PARAMS, jnp.zeros((1, D)), offsets)
    whole = jnp.broadcast_to(offsets[:, None, None], (L + 1, 2, 9, D))
    found = small.MODEL.apply(steered, TOKENS, ONES, PLACES, capture=True)
    known = small.MODEL.apply(PARAMS, TOKENS, ONES, PLACES, capture=True, perturbation=Perturbation(whole))
    np.testing.assert_allclose(found.hidden, known.hidden, atol=1e-5)
    np.testing.assert_allclose(found.residuals, known.residuals, atol=1e-5)


def test_a_continuous_prompt_lies_on_the_first_tokens_of_every_segment():
    prompt = vectors(1, 3)
    steered = Steered(PARAMS, prompt, jnp.zeros((L + 1, D)))
    places = jnp.array([[0, 1, 2, 3, 4, 0, 1, 2, 3]] * 2)
    segments = jnp.array([[1] * 5 + [2] * 4] * 2)
    added = jnp.zeros((L + 1, 2, 9, D)).at[0, :, :3].set(prompt).at[0, :, 5:8].set(prompt)
    found = small.MODEL.apply(steered, TOKENS, segments, places)
    known = small.MODEL.apply(PARAMS, TOKENS, segments, places, perturbation=Perturbation(added))
    np.testing.assert_allclose(found.hidden, known.hidden, atol=1e-5)


def test_generation_is_steered_as_whole_passes_are():
    steered = Steered(PARAMS, vectors(2, 4), vectors(3, L + 1))
    answers = generate(small.MODEL, steered, TOKENS, ONES, (), Decoding(5))
    for row, answer in zip(TOKENS, answers, strict=True):
        logits = small.plain_logits(small.MODEL, steered, [*row, *answer])
        np.testing.assert_array_equal(jnp.argmax(logits, axis=-1)[len(row) - 1 : -1], answer)
    plain = generate(small.MODEL, PARAMS, TOKENS, ONES, (), Decoding(5))
    assert not np.array_equal(plain, answers)


def test_vectors_of_zero_change_nothing():
    zero = Steered(PARAMS, jnp.zeros((1, D)), jnp.zeros((L + 1, D)))
    found, plain = (small.MODEL.apply(each, TOKENS, ONES, PLACES).hidden for each in (zero, PARAMS))
    np.testing.assert_allclose(found, plain, atol=1e-6)
