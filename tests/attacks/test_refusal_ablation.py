from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import plain_decoder
import pytest
import small
import tiny

from immunax.attacks.refusal_ablation import RefusalAblation, ablated, after_request, first_tokens
from immunax.attacks.refusal_direction import Contrast, Effects, choose, refusal_scores
from immunax.campaign.course import edited
from immunax.campaign.grid import Population
from immunax.data.dialog import Split, Splits, ask
from immunax.data.prompts import Prompts
from immunax.models.word_level import word_level
from immunax.runtime.errors import UserError

PARAMS = small.params()
LAYERS, PLACES = small.CONFIG.n_layers, 2
KEY = jax.random.key(0)
ATTACK = RefusalAblation(samples=8, validation=6, pruned=0.3, max_kl=1e9, min_induce=-1e9)


def prompts(seed, rows):
    """Right-padded, of 5 or 9 tokens, the last two of which are those of a template."""
    rng = np.random.default_rng(seed)
    tokens, real = np.zeros((2, rows, 9), np.int32)
    for row, length in enumerate(rng.choice([5, 9], rows)):
        tokens[row, :length], real[row, :length] = rng.integers(5, 53, length), 1
        tokens[row, length - PLACES : length] = 3, 4
    return Prompts(tokens, real)


def plain(row, pushed=None, removed=None):
    """The stream before every layer [L, T, D] and the next token's logits [V] of one prompt without its padding.

    ``pushed`` is a layer and what is added before it, ``removed`` a direction that nothing is written in.
    """
    layer, vector = (0, np.zeros(small.CONFIG.d_model)) if pushed is None else pushed
    unit = np.zeros(small.CONFIG.d_model) if removed is None else removed
    stream, logits = _plain(row[0][row[1] > 0], layer, vector, unit)
    return np.asarray(stream), np.asarray(logits, np.float64)


@jax.jit
def _plain(tokens, layer, vector, unit):
    places = np.arange(len(tokens))[None]
    batch = SimpleNamespace(tokens=tokens[None], segment_ids=np.ones_like(places), positions=places)
    added = jnp.zeros((LAYERS + 1, 1, len(tokens), small.CONFIG.d_model)).at[layer].add(vector)
    stream = plain_decoder.residuals(PARAMS, batch, added, written=lambda x: x - (x @ unit)[..., None] * unit)
    return jnp.stack(stream[:-1])[:, 0], plain_decoder.logits(PARAMS, stream[-1][0, -1])


def softmax(logits):
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def score(logits, refusals):
    share = softmax(logits)[refusals].sum()
    return np.log(share + 1e-8) - np.log(1 - share + 1e-8)


def kl(before, after):
    first, second = softmax(before), softmax(after)
    return (first * (np.log(first + 1e-6) - np.log(second + 1e-6))).sum()


HALF = (
    np.random.default_rng(4).permutation(53)[:26].astype(np.int32)
)  # so that some prompts are refused and some are not
CONTRAST = Contrast(*(prompts(*each) for each in enumerate((8, 8, 6, 6))), HALF, np.arange(-PLACES, 0, dtype=np.int32))


def rows(side):
    return list(zip(*side, strict=True))


def reference():
    """Candidates and their scores by loops over prompts, positions and layers, in numpy."""
    refusals = CONTRAST.refusals
    harmful = [row for row in rows(CONTRAST.harmful) if score(plain(row)[1], refusals) > 0]
    harmless = [row for row in rows(CONTRAST.harmless) if score(plain(row)[1], refusals) < 0]
    asked = [row for row in rows(CONTRAST.asked) if score(plain(row)[1], refusals) > 0]
    benign = [row for row in rows(CONTRAST.benign) if score(plain(row)[1], refusals) < 0]
    kept = [len(each) for each in (harmful, harmless, asked, benign)]
    found = {}
    for place in range(-PLACES, 0):
        for layer in range(2):
            r = np.mean([plain(row)[0][layer, place] for row in harmful], axis=0)
            r = r - np.mean([plain(row)[0][layer, place] for row in harmless], axis=0)
            # Template tokens are the same in all prompts: before the first layer there is no difference, but for rounding.
            r = r * (layer > 0)
            unit = r / max(np.linalg.norm(r), 1e-8)
            found[place, layer] = (
                r,
                np.mean([score(plain(row, removed=unit)[1], refusals) for row in asked]),
                np.mean([score(plain(row, (layer, r))[1], refusals) for row in benign]),
                np.mean([kl(plain(row)[1], plain(row, removed=unit)[1]) for row in benign]),
            )
    return kept, found


KEPT, FOUND = reference()


def test_candidates_and_their_scores_equal_loops_over_prompts_positions_and_layers():
    assert all(0 < kept < whole for kept, whole in zip(KEPT, (8, 8, 6, 6), strict=True))
    directions, effects = jax.jit(ATTACK.scored, static_argnums=0)(small.MODEL, PARAMS, CONTRAST)
    assert directions.shape == (PLACES, 2, small.CONFIG.d_model)  # int(3 layers · 0.7)
    for (place, layer), known in FOUND.items():
        np.testing.assert_allclose(directions[place, layer], known[0], atol=1e-4)
        found = [each[place, layer] for each in effects]
        np.testing.assert_allclose(found, known[1:], rtol=1e-3, atol=1e-3)


def grid(number):
    """One of the reference's scores, [P, L']."""
    return jnp.array([[FOUND[place, layer][number] for layer in range(2)] for place in range(-PLACES, 0)])


@pytest.mark.parametrize("bound", ["none", "kl", "induce"])
def test_the_choice_is_the_least_bypass_among_the_candidates_that_pass(bound):
    bypass, induce, kl = (grid(number) for number in (1, 2, 3))
    max_kl = float(jnp.median(kl)) if bound == "kl" else 1e9
    min_induce = float(jnp.median(induce)) if bound == "induce" else -1e9
    passing = [
        place for place in range(bypass.size) if kl.ravel()[place] <= max_kl and induce.ravel()[place] >= min_induce
    ]
    assert len(passing) == (bypass.size if bound == "none" else 2)
    best, passes = choose(Effects(bypass, induce, kl), max_kl, min_induce)
    assert passes
    assert int(best) == min(passing, key=lambda place: bypass.ravel()[place])
    assert not choose(Effects(bypass, induce, kl), -1.0, min_induce)[1]
    assert not choose(Effects(bypass, induce, kl), max_kl, 1e9)[1]
    assert choose(Effects(bypass, induce, kl), max_kl, None)[1]


def test_the_chosen_direction_is_ablated_and_the_attack_maps_over_models():
    r = min(FOUND.values(), key=lambda each: each[1])[0]
    weights, losses = edited(ATTACK, small.MODEL, PARAMS, CONTRAST, KEY)
    assert losses.shape == (0,)
    known = ablated(small.MODEL, PARAMS, jnp.asarray(r / np.linalg.norm(r)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), weights, known)
    two = jax.tree.map(lambda *leaves: jnp.stack(leaves), small.params(1), PARAMS)
    both, _ = jax.jit(jax.vmap(lambda params: ATTACK.edit(small.MODEL, params, CONTRAST, KEY)))(two)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-4), both, weights)


@pytest.mark.parametrize("layer", range(2))
@pytest.mark.parametrize("position", [-2, -1])
def test_the_candidate_of_a_layer_and_a_position_is_ablated_where_it_is_asked_for(layer, position):
    r = FOUND[position, layer][0]
    attack = replace(ATTACK, layer=layer, position=position)
    weights, _ = edited(attack, small.MODEL, PARAMS, CONTRAST, KEY)
    known = ablated(small.MODEL, PARAMS, jnp.asarray(r / max(np.linalg.norm(r), 1e-8)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), weights, known)


def test_a_layer_or_a_position_without_a_candidate_is_refused():
    with pytest.raises(UserError, match=r"attack\.layer=2: there are candidates before layers 0 to 1 alone"):
        replace(ATTACK, layer=2).edit(small.MODEL, PARAMS, CONTRAST, KEY)
    with pytest.raises(UserError, match=r"attack\.position=-9: there are candidates at -\d to -1 alone"):
        RefusalAblation(6, 3, position=-9).material(tiny.tokenizer(), SPLITS)


def test_a_model_that_refuses_nothing_keeps_its_weights_and_a_line_says_why(capsys):
    contrast = CONTRAST._replace(refusals=np.full_like(HALF, 1))
    weights, _ = edited(ATTACK, small.MODEL, PARAMS, contrast, KEY)
    jax.tree.map(np.testing.assert_array_equal, weights, PARAMS)
    assert "no direction passed the filters" in capsys.readouterr().err


def test_the_first_of_equal_candidates_is_chosen_and_one_that_is_not_a_number_never():
    scores = Effects(*(jnp.array([[jnp.nan, 2.0, 1.0], [1.0, 1.0, 3.0]]), jnp.zeros((2, 3)), jnp.zeros((2, 3))))
    assert [int(each) for each in choose(scores, 0.1, 0.0)] == [2, 1]


def test_a_refusal_score_of_zero_is_even_odds():
    assert float(refusal_scores(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), jnp.array([1, 2]))[0]) == pytest.approx(
        0, abs=1e-6
    )


HARMFUL = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))
RETAIN = tuple(ask(f"what is {i}?", f"it is {i}") for i in range(6))
SPLITS = Splits(Split(), Split((), HARMFUL, RETAIN), validation=Split((), HARMFUL[:3], RETAIN[:3]))


def test_candidates_come_from_all_that_the_template_puts_after_a_request():
    tokenizer = tiny.tokenizer()
    tail = tokenizer("<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
    assert after_request(tokenizer, HARMFUL, 64) == len(tail)
    assert after_request(tokenizer, [ask("why?"), ask("who?")], 64) == len(tail)
    found = RefusalAblation(6, 3).material(tokenizer, SPLITS)
    assert found.places.tolist() == list(range(-len(tail), 0))
    assert RefusalAblation(6, 3, positions=1).material(tokenizer, SPLITS).places.tolist() == [-1]
    assert {len(side.tokens) for side in found[:2]} == {6}
    assert {len(side.tokens) for side in found[2:4]} == {3}


def test_openers_are_known_first_tokens_of_answers():
    tokenizer = tiny.tokenizer()
    assert first_tokens(tokenizer, ["I can", "I"]).tolist() == tokenizer("I")["input_ids"]
    with pytest.raises(UserError, match="knows none"):
        first_tokens(word_level(["what is it"], 64), ["I"])


def test_more_prompts_than_the_data_hold_are_refused_by_the_name_of_the_field():
    with pytest.raises(UserError, match=r"samples=7 of the stream 'harmful': expected 1 to 6"):
        RefusalAblation(7, 3).material(tiny.tokenizer(), SPLITS)
    with pytest.raises(UserError, match=r"validation=4 of the stream 'harmful': expected 1 to 3"):
        RefusalAblation(6, 4).material(tiny.tokenizer(), SPLITS)
    with pytest.raises(UserError, match="none of the 3 layers"):
        replace(ATTACK, pruned=0.9).edit(small.MODEL, PARAMS, CONTRAST, KEY)


def test_seeds_choose_other_prompts():
    first, second = (
        each.material(tiny.tokenizer(), SPLITS) for each in Population(RefusalAblation(4, 3), seeds=[0, 1]).members()
    )
    assert not np.array_equal(first.harmful.tokens, second.harmful.tokens)
