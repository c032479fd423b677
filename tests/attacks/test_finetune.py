from dataclasses import dataclass, replace

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.attack import Edit
from immunax.attacks.benign_sft import BenignSFT
from immunax.attacks.finetune import take
from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.identity_shift import IdentityShift
from immunax.attacks.segments import segments
from immunax.attacks.tuning import Tuning
from immunax.campaign.course import course
from immunax.campaign.grid import Population
from immunax.campaign.programs import programs
from immunax.data.dialog import Message, Split, Splits, ask
from immunax.data.ends import stop_tokens
from immunax.data.order import indices
from immunax.data.template import Template
from immunax.inner.optimizers import AdamW
from immunax.models.lora import Adapted, LoraSpec
from immunax.models.model import Model
from immunax.runtime.errors import UserError

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=512))
TUNING = Tuning(epochs=3, batch_size=2, optimizer=AdamW(1e-2), max_length=128, probes=3)
SPLITS = Splits(
    Split(),
    Split(
        harmful=tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6)),
        retain=tuple(ask(f"what is {i}", f"it is {i}") for i in range(6)),
    ),
)


PARAMS = jax.jit(MODEL.init)(jax.random.key(0))
KEY = jax.random.key(0)


def _run(attack, times=1):
    (program,) = programs([attack], tiny.tokenizer(), SPLITS)
    return list(course(attack, program, MODEL, PARAMS, KEY, times))


def test_an_attack_is_seen_along_its_course_and_ends_where_a_plain_loop_of_adamw_does():
    attack = HarmfulSFT(samples=4, tuning=TUNING)
    points = _run(attack, 3)
    weights, losses = alone.descend(attack, MODEL, PARAMS, SPLITS, KEY)
    assert [point.step for point in points] == [2, 4, 6]
    assert [len(point.losses) for point in points] == [2, 4, 6]
    np.testing.assert_allclose(points[-1].losses, losses, rtol=1e-4)
    np.testing.assert_allclose(points[-1].weights["norm"]["scale"], weights["norm"]["scale"], atol=1e-4)
    halfway = replace(attack, tuning=replace(TUNING, epochs=2))
    jax.tree.map(np.testing.assert_array_equal, points[1].weights, _run(halfway)[0].weights)


def test_a_lora_attack_trains_adapters_alone():
    spec = LoraSpec(rank=2, targets=("q_proj", "down_proj"))
    [point] = _run(HarmfulSFT(samples=4, tuning=replace(TUNING, lora=spec)))
    assert isinstance(point.weights, Adapted)
    jax.tree.map(np.testing.assert_array_equal, point.weights.base, PARAMS)
    assert point.losses[-1] < point.losses[0]
    assert set(point.weights.lora["layers"]["self_attn"]) == {"q_proj"}


@pytest.mark.parametrize(
    "attack", [HarmfulSFT(4, TUNING), BenignSFT(4, TUNING), IdentityShift(tuning=replace(TUNING, max_length=512))]
)
def test_every_attack_lowers_its_loss_and_repeats_itself_bit_for_bit(attack):
    [one], [other] = _run(attack), _run(attack)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert one.losses[-1] < one.losses[0]


def test_an_attack_without_fields_of_its_own_asks_nothing_of_whoever_writes_it():
    @dataclass(frozen=True)
    class Halve(Edit):
        def edit(self, model, params, material, key):
            return jax.tree.map(lambda leaf: leaf / 2, params), jnp.zeros(0)

    attack = Halve()
    [point] = course(attack, attack.material(tiny.tokenizer(), SPLITS), MODEL, PARAMS, KEY)
    np.testing.assert_array_equal(point.weights["norm"]["scale"], PARAMS["norm"]["scale"] / 2)
    assert (point.step, attack.samples, attack.max_length, attack.seed_field) == (0, 0, 0, None)
    assert Population(attack, seeds=(0, 1)).members() == (attack, attack)


def test_the_seed_chooses_the_dialogs_and_other_seeds_choose_others():
    one, same, other = (HarmfulSFT(3, replace(TUNING, seed=seed)).dialogs(SPLITS) for seed in (0, 0, 1))
    assert one == same != other
    assert set(one) <= set(SPLITS.attack.harmful)
    assert len(IdentityShift().dialogs(SPLITS)) == 10


def test_the_dialogs_of_a_seed_are_those_that_any_stream_of_data_begins_with():
    stream = SPLITS.attack.harmful
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
    plain = {f"Now: {dialog.question}!" for dialog in SPLITS.attack.retain}
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
