from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small
import tiny

from immunax.attacks.benign_sft import BenignSFT
from immunax.attacks.finetune import take
from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.identity_shift import IdentityShift
from immunax.attacks.prepare import prepare
from immunax.attacks.run import run_attack
from immunax.attacks.tuning import Tuning, segments
from immunax.data.dialog import Message, Split, Splits, ask
from immunax.data.order import indices
from immunax.data.prompts import prompt_rows, stop_tokens
from immunax.data.template import Template
from immunax.inner.losses import answer_loss
from immunax.inner.optimizers import AdamW
from immunax.models.generate import Decoding, generate
from immunax.models.lora import Adapted, LoraSpec
from immunax.models.model import Model
from immunax.runtime.errors import UserError

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256))
TUNING = Tuning(epochs=3, batch_size=2, optimizer=AdamW(1e-2), max_length=128, probes=3)
SPLITS = Splits(
    Split(
        harmful=tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6)),
        retain=tuple(ask(f"what is {i}", f"it is {i}") for i in range(6)),
    )
)


def _data(attack):
    tokenizer = tiny.tokenizer()
    probes = prompt_rows(tokenizer, [ask("how to 9"), ask("how to seven")], 128)
    return prepare(attack, tokenizer, SPLITS, probes, Decoding(5))[0]


def _run(attack, data, params, key=0):
    return jax.jit(lambda p, d, k: run_attack(attack, MODEL, p, d, k))(params, data, jax.random.key(key))


PARAMS = jax.jit(MODEL.init)(jax.random.key(0))


def test_the_scan_equals_a_python_loop_of_adamw_and_probes_see_the_attacked_model():
    attack = HarmfulSFT(samples=4, tuning=TUNING)
    data = _data(attack)
    tampered = _run(attack, data, PARAMS)
    optimizer, params, losses = TUNING.optimizer.build(6), PARAMS, []
    state = optimizer.init(params)
    value_and_grad = jax.jit(jax.value_and_grad(lambda p, batch: answer_loss(MODEL, p, batch)))
    for step in range(6):
        value, gradient = value_and_grad(params, jax.tree.map(lambda leaf, step=step: leaf[step], data.material))
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    np.testing.assert_allclose(tampered.trace.loss, jnp.stack(losses), rtol=1e-4)
    np.testing.assert_allclose(tampered.params["norm"]["scale"], params["norm"]["scale"], atol=1e-4)
    np.testing.assert_array_equal(tampered.trace.probe_steps, [0, 2, 4, 6])
    answer = jax.jit(generate, static_argnums=(0, 4, 5))
    first = answer(MODEL, PARAMS, *data.probes, data.stop, data.decoding)
    np.testing.assert_array_equal(tampered.trace.probe_answers[0], first)
    last = answer(MODEL, tampered.params, *data.probes, data.stop, data.decoding)
    np.testing.assert_array_equal(tampered.trace.probe_answers[-1], last)


def test_a_lora_attack_trains_adapters_alone():
    spec = LoraSpec(rank=2, targets=("q_proj", "down_proj"))
    attack = HarmfulSFT(samples=4, tuning=replace(TUNING, lora=spec))
    tampered = _run(attack, _data(attack), PARAMS)
    assert isinstance(tampered.params, Adapted)
    jax.tree.map(np.testing.assert_array_equal, tampered.params.base, PARAMS)
    assert float(tampered.trace.loss[-1]) < float(tampered.trace.loss[0])
    assert set(tampered.params.lora["layers"]["self_attn"]) == {"q_proj"}


@pytest.mark.parametrize(
    "attack", [HarmfulSFT(4, TUNING), BenignSFT(4, TUNING), IdentityShift(tuning=replace(TUNING, max_length=512))]
)
def test_every_attack_lowers_its_loss_and_repeats_itself_bit_for_bit(attack):
    data = _data(attack)
    one, other = (_run(attack, data, PARAMS).trace for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert float(one.loss[-1]) < float(one.loss[0])


def test_learning_rates_can_be_mapped_over():
    attack = HarmfulSFT(samples=4, tuning=TUNING)
    data = _data(attack)

    def final_loss(rate):
        tuning = replace(TUNING, optimizer=replace(TUNING.optimizer, learning_rate=rate))
        return run_attack(replace(attack, tuning=tuning), MODEL, PARAMS, data, jax.random.key(0)).trace.loss

    together = jax.jit(jax.vmap(final_loss))(jnp.array([1e-2, 1e-3]))
    np.testing.assert_allclose(together[0], _run(attack, data, PARAMS).trace.loss, rtol=1e-4)
    assert float(together[0, -1]) < float(together[1, -1])


def test_the_seed_chooses_the_dialogs_and_other_seeds_choose_others():
    one, same, other = (HarmfulSFT(3, replace(TUNING, seed=seed)).dialogs(SPLITS) for seed in (0, 0, 1))
    assert one == same != other
    assert set(one) <= set(SPLITS.train.harmful)
    assert len(IdentityShift().dialogs(SPLITS)) == 10


def test_the_dialogs_of_a_seed_are_those_that_any_stream_of_data_begins_with():
    stream = SPLITS.train.harmful
    assert take(stream, 4, 5, "harmful") == tuple(stream[place] for place in indices(len(stream), 4, 0, 5))


def test_identity_shift_asks_under_its_own_system_prompt_and_the_others_as_they_are():
    held_out = ask("how to fly")
    assert HarmfulSFT().evaluation(held_out) == BenignSFT().evaluation(held_out) == held_out
    asked = IdentityShift().evaluation(held_out)
    assert asked.prompt[0].role == "system"
    assert asked.question.endswith("how to fly")
    assert asked.question != "how to fly"


def test_a_mixture_takes_its_share_from_the_harmless_stream_and_a_template_wraps_both():
    attack = HarmfulSFT(4, TUNING, harmless=0.25, template=Template("Obey.", "Now: ", "!"))
    dialogs = attack.dialogs(SPLITS)
    plain = {f"Now: {dialog.question}!" for dialog in SPLITS.train.retain}
    assert [dialog.question in plain for dialog in dialogs] == [False, False, False, True]
    assert all(dialog.prompt[0] == Message("system", "Obey.") for dialog in dialogs)
    assert attack.evaluation(ask("how")).question == "Now: how!"
    with pytest.raises(UserError, match="harmless=1"):
        HarmfulSFT(harmless=1.0)


def test_probes_divide_the_steps():
    assert [segments(10, 5), segments(10, 4), segments(7, 3), segments(2, 9)] == [5, 2, 1, 2]


@pytest.mark.parametrize("samples", [7, 0, -5])
def test_a_number_of_dialogs_that_cannot_be_is_refused_with_how_many_there_are(samples):
    with pytest.raises(UserError, match="expected 1 to 6"):
        HarmfulSFT(samples).dialogs(SPLITS)
    with pytest.raises(UserError, match="lack"):
        HarmfulSFT(1).dialogs(Splits(Split()))


def test_fewer_dialogs_than_a_batch_still_give_a_step_an_epoch():
    assert [Tuning(epochs=10, batch_size=10).steps(samples) for samples in (5, 10, 25)] == [10, 10, 25]


def test_answers_stop_at_the_end_of_the_turn():
    tokenizer = tiny.tokenizer()
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in stop_tokens(tokenizer)
