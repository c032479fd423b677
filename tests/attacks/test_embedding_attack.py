from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.embedding_attack import EmbeddingAttack, PromptwiseEmbeddingAttack
from immunax.data.chat import encode_all, encode_prompts
from immunax.data.dialog import Dialog, Split, Splits, ask
from immunax.models.model import Model
from immunax.models.steered import Perturbation
from immunax.runtime.errors import UserError

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
KEY = jax.random.key(0)
STEPS, ETA = 3, 0.01
HARMFUL = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))
SPLITS = Splits(Split(), Split(harmful=HARMFUL))
PROMPTWISE = PromptwiseEmbeddingAttack(2, STEPS, ETA, opening="Sure")
HELD_OUT = Splits(Split(), test=Split(harmful=(*HARMFUL[:2], HARMFUL[0], ask("why not?"))))


@cache
def run(attack, which):
    material = attack.material(tiny.tokenizer(), {"own": SPLITS, "held out": HELD_OUT}[which])
    return material, *jax.jit(lambda params, material: attack.edit(MODEL, params, material, KEY))(PARAMS, material)


def by_hand(prompt, answer, marks):
    """The authors' loop on one prompt: δ on the marks' embeddings by signed steps, the loss from logits at every position."""
    start = next(at for at in range(len(prompt)) if list(prompt[at : at + len(marks)]) == list(marks))
    delta, losses = jnp.zeros((len(marks), MODEL.config.d_model)), []
    for _ in range(STEPS):
        value, slope = _loss(delta, jnp.array([*prompt, *answer]), start, len(prompt))
        delta, losses = delta - ETA * jnp.sign(slope), [*losses, value]
    return delta, losses


@partial(jax.jit, static_argnums=3)
@jax.value_and_grad
def _loss(delta, tokens, start, length):
    places = jnp.arange(len(tokens))[None]
    added = jnp.zeros((MODEL.config.n_layers + 1, 1, len(tokens), MODEL.config.d_model))
    added = added.at[0, 0, start + jnp.arange(len(delta))].set(delta)
    hidden = MODEL.apply(PARAMS, tokens[None], jnp.ones_like(places), places, perturbation=Perturbation(added)).hidden[
        0
    ]
    log = jax.nn.log_softmax(hidden @ PARAMS["embed_tokens"]["embedding"].T)
    return -log[length - 1 : -1][jnp.arange(len(tokens) - length), tokens[length:]].mean()


def agree(found, known):
    """Signs of gradients near zero may fall either way."""
    assert np.isclose(found, known, atol=1e-6).mean() > 0.97


def test_the_suffix_of_one_dialog_is_that_of_the_authors_loop():
    attack = EmbeddingAttack(2, STEPS, ETA, samples=1)
    material, steered, losses = run(attack, "own")
    ((example,), _) = encode_all(tiny.tokenizer(), [attack.evaluation(_chosen(material))], 512)
    delta, known = by_hand(example.prompt, example.answer, material.marks)
    np.testing.assert_allclose(losses, known, rtol=1e-4)
    agree(steered.prompt[0], delta)
    jax.tree.map(np.testing.assert_array_equal, steered.base, PARAMS)


def _chosen(material):
    text = tiny.tokenizer().decode(material.batches.tokens[0, 0])
    return next(dialog for dialog in HARMFUL if dialog.question in text)


def test_promptwise_suffixes_are_those_of_the_authors_loop_on_each_prompt():
    attack = PROMPTWISE
    material, steered, losses = run(attack, "held out")
    known = []
    for prompt in (HARMFUL[0], HARMFUL[1], ask("why not?")):
        asked = attack.evaluation(prompt)
        ((example,), _) = encode_all(tiny.tokenizer(), [Dialog(asked.prompt, "Sure")], 512)
        delta, each = by_hand(example.prompt, example.answer[:-1], material.marks)
        known.append(each)
        row = jnp.array(encode_prompts(tiny.tokenizer(), [asked], 512))
        added = steered.embedded(row)[0]
        moved = np.flatnonzero(np.abs(added).sum(axis=-1))
        assert len(moved) == len(material.marks)
        agree(added[moved], delta)
    np.testing.assert_allclose(losses, np.mean(known, axis=0), rtol=1e-4)


def test_the_marks_stand_behind_the_request_and_an_unknown_prompt_is_not_steered():
    attack = PROMPTWISE
    assert attack.evaluation(ask("why")).question == "why ! !"
    _, steered, _ = run(attack, "held out")
    row = jnp.array(encode_prompts(tiny.tokenizer(), [attack.evaluation(ask("something else"))], 512))
    assert not steered.embedded(row).any()


def test_marks_that_a_tokenizer_merges_with_other_text_are_refused():
    with pytest.raises(UserError, match=r"attack\.mark=' '|and a mark"):
        EmbeddingAttack(mark=" ")
    with pytest.raises(UserError, match="at least 2"):
        EmbeddingAttack(tokens=1)
    attack = EmbeddingAttack(2)
    with pytest.raises(UserError, match="choose another mark"):
        attack.marks(tiny.tokenizer(), [ask("no marks here")])
