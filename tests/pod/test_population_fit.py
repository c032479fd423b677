from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from immunax.attacks.benign_then_harmful import BenignThenHarmful
from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.reverse_dpo import ReverseDPO
from immunax.attacks.tuning import Tuning
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.inner.halving import Halving
from immunax.inner.population import map_members
from immunax.models.config import DecoderConfig
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.pod.abstract_population import planned
from immunax.pod.chips import CHIPS
from immunax.pod.hlo import parse
from immunax.pod.population_fit import compile_attacks, compile_search
from immunax.pod.report import show, to_json
from immunax.pod.traffic import traffic
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build

MODEL = Model(DecoderConfig("llama", 64, 16, 32, 2, 4, 4, 8, 32), remat="dots")
MESH = build(MeshSpec(attack=2, fsdp=2, tensor=2))
CHIP = CHIPS["v5e"]
ATTACK = HarmfulSFT(4, Tuning(epochs=3, batch_size=4, max_length=8, lora=LoraSpec(2)))

pytestmark = pytest.mark.usefixtures("compile_fast")


@pytest.fixture(scope="module")
def fit():
    (found,) = compile_attacks([ATTACK], MODEL, MESH, CHIP, copies=4)
    return found


def test_members_on_their_own_parts_of_the_devices_never_speak_and_compute_nothing_twice(fit, capsys):
    assert (fit.members, fit.together, fit.turns, fit.steps) == (4, 4, 1, 3)
    counted = fit.fit.traffic
    assert counted.over("attack") == {}
    assert counted.over("fsdp")
    assert counted.over("tensor")
    assert counted.flops * MESH.size == pytest.approx(fit.fit.flops + fit.fit.recomputed, rel=0.15)
    show("a population", fit.fit, CHIP, MESH)
    assert "none" in next(line for line in capsys.readouterr().out.splitlines() if "over attack" in line)
    record = to_json(fit.fit, CHIP, MESH)
    assert record["slices"] == 1
    assert 0 < record["mfu"] < 1
    assert fit.seconds(CHIP, 8) == pytest.approx(3 * record["step_seconds"])


def test_a_member_that_reads_the_others_is_found():
    # What a loss over all members would be.
    def together(own):
        return map_members(lambda mine, shared: mine - shared, own, own.mean(axis=0), mesh=MESH)

    shape = jax.ShapeDtypeStruct((4, 16), jnp.float32, sharding=NamedSharding(MESH, P("attack")))
    program = parse(jax.jit(together).lower(shape).compile().as_text())
    assert traffic(program, dict(MESH.shape)).over("attack")


def test_members_that_do_not_fit_together_take_turns(fit):
    needed = fit.fit.memory.arguments + fit.fit.memory.temporaries
    (turns,) = compile_attacks([ATTACK], MODEL, MESH, replace(CHIP, hbm_bytes=int(1.1 * needed)), copies=4)
    assert (turns.members, turns.together, turns.turns) == (4, 2, 2)
    assert turns.fit.fits


@pytest.mark.slow
def test_a_search_is_compiled_as_the_stretches_that_its_members_take():
    grid = {"tuning.optimizer.learning_rate": [1e-3, 1e-2]}
    search = Search({"lora": Population(ATTACK, grid, (0, 1))}, Halving(1, 2), examples=2)
    (found,) = compile_search(search, MODEL, MESH, CHIP)
    assert found.fit.fits
    assert found.fit.traffic.over("attack") == {}
    # Four members a step, then two for one step, then one for the last: all of them together on the two devices along attack.
    assert (found.members, found.together, found.steps) == (4, 4, 3)


def test_every_fine_tuning_is_planned_at_its_longest_in_rows_that_the_devices_share():
    tuning = replace(ATTACK.tuning, batch_size=3, lora=None)
    for attack, steps in (
        (HarmfulSFT(6, tuning), 6),
        (ReverseDPO(6, tuning), 6),
        (BenignThenHarmful(3, 6, tuning), 7),
    ):
        (part,) = planned([attack], 4)
        assert part.steps == steps
        batches = part.batches.of([0], 0, steps)
        assert {leaf.shape[2] for leaf in jax.tree.leaves(batches)} == {4}
        batch = batches.harmful if isinstance(attack, ReverseDPO) else batches
        assert batch.tokens.shape[-1] == 8
        assert batch.answer_weight[0, 0].sum() == 3 * 7
    with pytest.raises(UserError, match=r"attack\.samples is null"):
        planned([replace(ATTACK, samples=None)], 1)
