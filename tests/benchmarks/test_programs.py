"""The programs of the cases, from shapes alone."""

import jax
import pytest
from accelerated.catalogue import CASES, IMMUNAX, named
from accelerated.defenses import DEFENSES, defense_work
from accelerated.models import config_of
from accelerated.populations import members, stretch_work
from accelerated.programs import work_of

from immunax.models.flops import training_flops
from immunax.outer.training import Training
from immunax.pod.abstract_step import abstract_batch
from immunax.runtime.mesh import alone


def shapes(work):
    return jax.eval_shape(lambda: work.inputs(work.weights()))


@pytest.mark.parametrize("name", sorted(DEFENSES))
def test_a_defense_is_given_the_streams_of_its_mixture(name):
    sizes = named(name).sized(tiny=True)
    defense = DEFENSES[name](sizes)
    expected = abstract_batch(defense.mixture, Training(max_length=sizes["length"]), alone())
    state, found = shapes(defense_work(sizes, "cpu"))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    same = jax.tree.map(
        lambda one, other: one.shape[:-1] == other.shape[:-1] and one.dtype == other.dtype, found, expected
    )
    assert jax.tree.all(same)
    assert state.train.trained["norm"]["scale"].dtype == "float32"


def test_whole_sizes_of_defenses_are_those_that_their_titles_say():
    tar, mlac = (DEFENSES[name](named(name).sized(tiny=False)).mixture.simulation for name in ("tar", "mlac"))
    assert (tar.steps, tar.batch, tar.checks, tar.paired, tar.mixed) == (16, 4, 4, True, True)
    assert (mlac.steps, mlac.batch, mlac.checks) == (16, 4, 1)


def test_a_population_is_every_rate_with_every_seed_and_starts_alike_by_seed():
    sizes = named("attacks_organism").sized(tiny=False)
    part = members(sizes, "cpu")
    assert (len(part.places), part.steps, len(set(part.alike))) == (64, 10, 8)
    rates = {attack.tuning.optimizer.learning_rate for attack in part.attacks}
    assert len(rates) == 8
    assert part.batches.of(range(64), 0, 1).tokens.shape[:2] == (64, 1)
    assert part.tokens.real == 64 * 10 * 10 * 40


def test_adapters_train_over_weights_in_the_dtype_of_the_computation_and_all_weights_in_float32():
    for name, dtype in (("lora_8x512", "bfloat16"), ("full_8x512", "float32")):
        state, _ = shapes(work_of(named(name), IMMUNAX, named(name).sized(tiny=True), "gpu"))
        assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(state.trained))
        base = state.trained if state.held is None else state.held.base
        assert base["embed_tokens"]["embedding"].dtype == dtype


def test_every_whole_case_has_its_flops_from_shapes():
    for case in CASES:
        if case.kind == "defense":
            continue
        work = work_of(case, "immunax xla" if case.kind == "attention" else IMMUNAX, case.sized(tiny=False), "gpu")
        assert work.flops > 1e9, case.name


def test_many_steps_of_a_scan_have_as_many_batches_and_flops():
    sizes = {**named("scan_64").sized(tiny=True), "steps": 3}
    one, three = (work_of(named("scan_64"), IMMUNAX, {**sizes, "steps": steps}, "cpu") for steps in (1, 3))
    assert three.flops == 3 * one.flops
    assert (three.units, shapes(three)[1].tokens.shape) == (3, (3, sizes["rows"], sizes["length"]))


def test_a_view_of_a_population_counts_every_member_and_step():
    sizes = named("attacks_1.1B").sized(tiny=True)
    work, part = stretch_work(sizes, "cpu"), members(sizes, "cpu")
    spec = part.attacks[0].tuning.lora
    tokens = [(sizes["length"], sizes["length"] // 2)] * sizes["samples"] * sizes["steps"] * len(part.places)
    assert work.flops == pytest.approx(training_flops(config_of("tiny"), tokens, spec))
    assert work.turns == sizes["steps"]
