from dataclasses import replace

import jax
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.campaign.population import attacked
from immunax.campaign.programs import programs
from immunax.campaign.turn_work import turn_work
from immunax.data.dialog import Split, Splits, ask
from immunax.inner.optimizers import AdamW
from immunax.models.flops import training_flops
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.runtime import goodput
from immunax.runtime.mesh import MeshSpec, build, shard

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
SPLITS = Splits(Split(), Split(harmful=tuple(ask(f"how to {i}", f"yes, {i * 37}") for i in range(8))))
TUNING = Tuning(epochs=2, batch_size=2, optimizer=AdamW(1e-2), max_length=128, probes=2)
MEMBERS = tuple(HarmfulSFT(4, replace(TUNING, seed=seed)) for seed in range(3))

pytestmark = pytest.mark.usefixtures("compile_fast")


def _read(attack):
    batches, _ = attack.examples(tiny.tokenizer(), SPLITS)
    return [[(len(each.tokens), len(each.answer)) for each in batch] for batch in batches]


def test_a_turn_is_what_its_members_train_on_and_copies_of_the_last_are_padding():
    [part] = programs(MEMBERS, tiny.tokenizer(), SPLITS)
    found = turn_work(part, MODEL, (1, 4), False, 1e12, (1, 3))
    sizes = [size for attack in MEMBERS[1:] for batch in _read(attack)[1:3] for size in batch]
    assert (found.steps, found.tokens) == (2 * 2, sum(tokens for tokens, _ in sizes))
    rows, length = part.batches.step.segment_ids.shape
    assert found.computed == 2 * 4 * rows * length
    assert found.flops == pytest.approx(training_flops(MODEL.config, sizes))
    assert found.products == 2e12
    # Nothing is useful beyond what is computed.
    assert turn_work(part, MODEL, (1, 4), False, 1e3, (1, 3)).flops == 2e3
    assert turn_work(part, MODEL, (1, 4), False, 0.0, (1, 3)).flops == found.flops


def test_adapters_need_less_and_a_shared_first_step_is_one():
    lora = [replace(each, tuning=replace(each.tuning, lora=LoraSpec(2))) for each in MEMBERS[:1] * 2]
    [part] = programs(lora, tiny.tokenizer(), SPLITS)
    whole = _read(MEMBERS[0])
    found = turn_work(part, MODEL, (0, 2), True, 1e12, (0, 4))
    sizes = [size for batch in whole for size in batch] * 2
    expected = training_flops(MODEL.config, sizes, LoraSpec(2)) - training_flops(MODEL.config, whole[0], LoraSpec(2))
    assert found.flops == pytest.approx(expected)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_s_accounts_hold_every_step_of_every_member_and_the_devices_that_took_them(tmp_path, devices):
    mesh = None if devices == 1 else build(MeshSpec(attack=devices))
    params = PARAMS if mesh is None else shard(PARAMS, mesh)
    attacks = [replace(each, tuning=replace(each.tuning, lora=LoraSpec(2))) for each in MEMBERS[:2]]
    parts = programs(attacks, tiny.tokenizer(), SPLITS)
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        for _ in attacked(parts, MODEL, params, jax.random.key(0), mesh, times=2):
            pass
        found = goodput.phases(tmp_path)["attack"]
    done = found.warm.plus(found.cold).work
    sizes = [size for attack in MEMBERS[:2] for batch in _read(attack) for size in batch]
    assert done.steps == 2 * 4
    assert done.tokens == sum(tokens for tokens, _ in sizes)
    assert done.flops == pytest.approx(training_flops(MODEL.config, sizes, LoraSpec(2)))
    assert done.flops < done.products < 20 * done.flops
    assert found.warm.device_seconds == pytest.approx(devices * found.warm.seconds)
    # The first stretch of a program, two steps of the members of a turn, is in no rate; here another test may have compiled it.
    assert found.cold.work.steps in (0, 2 * devices)
