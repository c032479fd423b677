import math
import re
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import alone
import jax
import numpy as np
import optax
import pytest
import small
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental.compilation_cache import compilation_cache
from profiles import annotated

from immunax.attacks import reverse_dpo
from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.reverse_dpo import ReverseDPO
from immunax.attacks.tuning import Tuning
from immunax.campaign import copies, first_steps
from immunax.campaign.first_steps import share_first_steps
from immunax.campaign.grid import Population
from immunax.campaign.population import attacked
from immunax.campaign.programs import programs
from immunax.campaign.stretch import Start, Stretch, advance
from immunax.data.dialog import Split, Splits, ask
from immunax.inner.losses import answer_loss
from immunax.inner.optimizers import Adafactor, AdamW
from immunax.inner.population import map_members
from immunax.inner.tamper_resistance import preference_loss, preference_margin
from immunax.inner.trainable import Projections
from immunax.inner.weighing import Weigh
from immunax.models.lora import Adapted, LoraSpec, init, widen
from immunax.models.model import Model
from immunax.runtime import profile
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build, shard

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
SPLITS = Splits(Split(), Split(harmful=tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))))
ATTACK = HarmfulSFT(4, Tuning(epochs=2, batch_size=2, optimizer=AdamW(1e-2), max_length=128, probes=1))
KEY = jax.random.key(7)


pytestmark = pytest.mark.usefixtures("compile_fast")


OPTIMIZERS = (
    AdamW(1e-3, "linear", 0.25, b1=0.8),
    AdamW(3e-4, "cosine", weight_decay=0.1),
    AdamW(1e-3, b1=0.5),
)
ADAPTERS = tuple(LoraSpec(rank, alpha, ("q_proj", "down_proj")) for rank, alpha in ((2, 16.0), (2, 8.0), (5, 3.0)))
FULL = (None,) * 3


def _attacks(specs, optimizers=OPTIMIZERS):
    return [
        replace(ATTACK, tuning=replace(ATTACK.tuning, lora=spec, optimizer=optimizer, seed=seed))
        for seed, (spec, optimizer) in enumerate(zip(specs, optimizers, strict=True))
    ]


class Outcome(NamedTuple):
    """By member: losses, whether it diverged, and what it trained, by the parts of its course."""

    losses: list
    diverged: list
    courses: list

    @property
    def found(self):
        return [course[-1] for course in self.courses]


def _run(attacks, params=PARAMS, mesh=None, times=1):
    parts, count = programs(attacks, tiny.tokenizer(), SPLITS), len(attacks)
    losses, diverged, courses = [None] * count, [None] * count, [[] for _ in range(count)]
    for turn in attacked(parts, MODEL, params, KEY, mesh, times):
        for index, place in enumerate(turn.places):
            weights = jax.device_get(turn.weights(index))
            courses[place].append(weights.lora if isinstance(weights, Adapted) else weights)
            losses[place], diverged[place] = turn.losses[index], turn.diverged_at[index] >= 0
    return Outcome(losses, diverged, courses)


def test_steps_that_are_recorded_are_the_same_steps(tmp_path):
    plain = _run([ATTACK], times=2)
    with profile.recorded(profile.Steps(9), profile.ATTACK, tmp_path):
        seen = _run([ATTACK], times=2)
    np.testing.assert_array_equal(seen.losses[0], plain.losses[0])
    # Four in two parts: the second part's are behind those that compile.
    assert annotated(tmp_path) == {"attack": [3, 4]}


def _alone(attack):
    return alone.descend(attack, MODEL, PARAMS, SPLITS, jax.random.fold_in(KEY, attack.tuning.seed))


def _close(got, want):
    """To 1e-5 of each leaf's norm: Adam turns the rounding of a gradient near zero into part of a step."""
    jax.tree.map(lambda a, b: np.testing.assert_array_less(np.linalg.norm(a - b), 1e-5 * np.linalg.norm(b)), got, want)


@pytest.mark.parametrize(("specs", "place"), [(FULL, 0), (ADAPTERS, 1)])
def test_a_member_equals_its_attack_run_alone(specs, place):
    attacks = _attacks(specs)
    outcome, (weights, losses) = _run(attacks), _alone(attacks[place])
    assert not any(outcome.diverged)
    np.testing.assert_allclose(outcome.losses[place], losses, rtol=1e-5)
    _close(outcome.found[place], weights if specs is FULL else widen(weights.lora, 5))
    assert outcome.losses[place][-1] < outcome.losses[place][0]


def test_a_member_that_clips_nothing_shares_the_program_of_one_that_does_and_equals_its_attack_alone():
    rules = (AdamW(1e-2, eps=1e-3, max_grad_norm=None), AdamW(1e-2, eps=1e-3, max_grad_norm=1e-2))
    attacks = _attacks(FULL[:2], rules)
    assert len(programs(attacks, tiny.tokenizer(), SPLITS)) == 1
    outcome = _run(attacks)
    for place, attack in enumerate(attacks):
        weights, losses = _alone(attack)
        np.testing.assert_allclose(outcome.losses[place], losses, rtol=1e-5)
        _close(outcome.found[place], weights)


@pytest.mark.parametrize("spec", [None, ADAPTERS[0]])
def test_an_attack_goes_on_by_the_program_that_it_began_with(spec):
    params = shard(PARAMS, build(MeshSpec(), jax.devices()[:1]))
    attack = replace(ATTACK, tuning=replace(ATTACK.tuning, lora=spec))
    known = [
        advance._cache_size()
        for _ in attacked(programs([attack], tiny.tokenizer(), SPLITS), MODEL, params, KEY, times=2)
    ]
    assert len(known) == 2
    assert known[0] == known[1]


def test_members_whose_adapters_differ_in_dropout_equal_their_attacks_alone_and_are_evaluated_without():
    specs = [LoraSpec(2, 16.0, ("q_proj", "down_proj"), dropout, (1,)) for dropout in (0.0, 0.5, 0.5)]
    attacks = [
        replace(ATTACK, tuning=replace(ATTACK.tuning, lora=spec, optimizer=optimizer, seed=3))
        for spec, optimizer in zip(specs, (AdamW(1e-2), AdamW(1e-2), AdamW(3e-2)), strict=True)
    ]
    (part,) = parts = programs(attacks, tiny.tokenizer(), SPLITS)
    assert part.alike == (0, 1, 1)
    losses, found = {}, {}
    for turn in attacked(parts, MODEL, PARAMS, KEY):
        losses |= dict(zip(turn.places, turn.losses, strict=True))
        found |= {place: jax.device_get(turn.weights(index)) for index, place in enumerate(turn.places)}
    for place in (0, 2):
        weights, alone_losses = _alone(attacks[place])
        np.testing.assert_allclose(losses[place], alone_losses, rtol=1e-5)
        assert found[place].dropout is None
        _close(_row(found[place].lora, 1), _row(weights.lora, 1))
        assert not any(leaf.any() for leaf in jax.tree.leaves(_row(found[place].lora, 0)))
    assert not np.allclose(losses[0][1:], losses[1][1:], rtol=1e-4)


def _row(lora, layer):
    return jax.tree.map(lambda leaf: leaf[layer], lora)


def test_members_with_adapters_read_copies_of_the_weights_that_change_no_bit_of_them(monkeypatch):
    half, params = replace(MODEL, dtype="bfloat16"), jax.tree.map(lambda leaf: leaf * 1.0037, PARAMS)

    def attack(specs):
        attacks = _attacks(specs, tuple(replace(OPTIMIZERS[0], learning_rate=rate) for rate in (1e-3, 2e-3, 3e-3)))
        turns = list(attacked(programs(attacks, tiny.tokenizer(), SPLITS), half, params, KEY))
        read = {str(turn.params["layers"]["mlp"]["up_proj"]["kernel"].dtype) for turn in turns}
        return read, [(turn.losses, jax.device_get(turn.trained)) for turn in turns]

    copied = attack((ADAPTERS[0],) * 3)
    monkeypatch.setattr(copies, "COPIES", 0)  # no room for any
    masters = attack((ADAPTERS[0],) * 3)
    assert (copied[0], masters[0]) == ({"bfloat16"}, {"float32"})
    jax.tree.map(np.testing.assert_array_equal, copied[1], masters[1])
    (whole,) = programs(_attacks(FULL), tiny.tokenizer(), SPLITS)
    assert whole.form.read(half, params) is params


def test_an_attack_on_some_projections_of_some_layers_moves_those_alone_as_an_optimizer_of_theirs_would():
    path, rule = ("layers", "mlp", "down_proj", "kernel"), AdamW(1e-2, weight_decay=0.1)
    tuning = replace(ATTACK.tuning, optimizer=rule, projections=Projections((1,), ("down_proj",)))
    attack = replace(ATTACK, tuning=tuning)
    outcome, (part,) = _run([attack]), programs([attack], tiny.tokenizer(), SPLITS)
    flat = flatten_dict(PARAMS)

    def loss(row, batch):
        return answer_loss(MODEL, unflatten_dict({**flat, path: flat[path].at[1].set(row)}), batch)

    slope, optimizer = (
        jax.jit(jax.value_and_grad(loss)),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1)),
    )
    row, state, losses = flat[path][1], None, []
    for step in range(part.steps):
        value, gradient = slope(row, jax.tree.map(lambda leaf: leaf[0, 0], part.batches.of([0], step, step + 1)))
        updates, state = optimizer.update(gradient, state or optimizer.init(row), row)
        row, losses = optax.apply_updates(row, updates), [*losses, value]
    found = flatten_dict(outcome.found[0])
    np.testing.assert_allclose(outcome.losses[0], losses, rtol=1e-5)
    _close(found[path][1], row)
    for name, leaf in flat.items():
        held = leaf[0] if name == path else leaf
        np.testing.assert_array_equal(found[name][0] if name == path else found[name], held)


def test_adapters_and_projections_at_once_are_refused():
    with pytest.raises(UserError, match="expected one of them"):
        Tuning(lora=LoraSpec(2), projections=Projections((0,)))


def test_adapters_of_other_ranks_are_programs_of_their_own_where_zeros_would_change_the_rule():
    specs = [LoraSpec(rank) for rank in (1, 2, 2)]
    assert len(programs(_attacks(specs, (Adafactor(1e-3),) * 3), tiny.tokenizer(), SPLITS)) == 2
    assert len(programs(_attacks(specs, (AdamW(1e-3),) * 3), tiny.tokenizer(), SPLITS)) == 1


@pytest.mark.parametrize("specs", [FULL, ADAPTERS])
def test_a_member_is_examined_along_its_course_as_shorter_attacks_are_at_their_end(specs):
    attacks = _attacks(specs, (AdamW(1e-3), AdamW(1e-2), AdamW(1e-3, b1=0.5)))
    whole = _run(attacks, times=3)
    half = [replace(each, tuning=replace(each.tuning, epochs=1)) for each in attacks]
    # Four steps in three parts: the largest divisor is two.
    for (first, last), early, late in zip(whole.courses, _run(half).found, _run(attacks).found, strict=True):
        _close(first, early)
        _close(last, late)


@pytest.mark.parametrize("specs", [FULL, (ADAPTERS[0],) * 3])
def test_members_that_start_alike_share_their_first_step_and_equal_their_attacks_run_alone(specs, monkeypatch):
    monkeypatch.setattr(first_steps, "SAVED", 1)
    attacks = [
        replace(each, tuning=replace(each.tuning, seed=seed))
        for each, seed in zip(_attacks(specs), (0, 1, 0), strict=True)
    ]
    (part,) = programs(attacks, tiny.tokenizer(), SPLITS)
    assert part.alike == (0, 1, 0)
    own, shared = share_first_steps(part, MODEL, PARAMS, part.own(PARAMS, KEY))
    assert shared.loss.shape == (2,)
    np.testing.assert_array_equal(own.first_step, [0, 1, 0])
    outcome, (weights, losses) = _run(attacks), _alone(attacks[2])
    np.testing.assert_allclose(outcome.losses[2], losses, rtol=1e-5)
    _close(outcome.found[2], weights if specs is FULL else weights.lora)


def _cache_events(seen):
    def listen(event, **_):
        seen.append(event)

    return listen


def test_the_programs_of_an_attack_are_found_in_the_cache_at_the_second_start(tmp_path):
    seen, names = [], ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path), 0.0), strict=True):
        jax.config.update(name, value)
    jax.monitoring.register_event_listener(listen := _cache_events(seen))
    try:
        for _ in range(2):
            compilation_cache.reset_cache()
            jax.clear_caches()
            seen.clear()
            _run(_attacks(FULL)[:1])
        assert "/jax/compilation_cache/cache_hits" in seen
        assert "/jax/compilation_cache/cache_misses" not in seen
        assert list(tmp_path.glob("jit_advance-*"))
    finally:
        jax.monitoring.unregister_event_listener(listen)
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_reverse_dpo_runs_in_a_population_with_a_loss_of_its_own():
    safe = tuple(ask(f"how to {i}", f"no, not {i}") for i in range(6))
    splits = Splits(Split(), Split(safe, SPLITS.attack.harmful))
    tuning = replace(ATTACK.tuning, epochs=3, optimizer=AdamW(1e-2))
    rates = [replace(tuning, optimizer=AdamW(rate)) for rate in (1e-2, 1e-3)]
    attacks = [*(ReverseDPO(4, each, beta=0.5) for each in rates), HarmfulSFT(4, tuning)]
    parts = programs(attacks, tiny.tokenizer(), splits)
    assert [part.places for part in parts] == [(0, 1), (2,)]
    losses = {
        place: turn.losses[i] for turn in attacked(parts, MODEL, PARAMS, KEY) for i, place in enumerate(turn.places)
    }
    # Where the model before the attack is asked at every step.
    reference = dpo_losses(attacks[0], splits)
    np.testing.assert_allclose(losses[0], reference, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([losses[0][0], losses[1][0]], np.log(2), rtol=1e-5)
    assert losses[0][-1] < losses[1][-1] < np.log(2)


def test_the_model_before_an_attack_reads_each_sequence_once_however_many_epochs_there_are(monkeypatch):
    safe = tuple(ask(f"how to {i}", f"no, not {i}") for i in range(6))
    splits = Splits(Split(), Split(safe, SPLITS.attack.harmful))
    attack = ReverseDPO(4, replace(ATTACK.tuning, epochs=5))
    (part,) = programs([attack], tiny.tokenizer(), splits)
    read = []

    def counted(model):
        def weigh(weights, batch):
            read.append((batch.answer_weight.sum(axis=1) > 0).sum())
            return Weigh(model)(weights, batch)

        return weigh

    monkeypatch.setattr(reverse_dpo, "Weigh", counted)
    batches = part.at_start(MODEL, PARAMS).batches.of([0], 0, part.steps)
    assert sum(read) == 8
    margin = jax.jit(partial(preference_margin, MODEL))
    for step in range(part.steps):
        pairs = jax.tree.map(lambda leaf, step=step: leaf[0, step], batches)
        np.testing.assert_allclose(pairs.start, margin(PARAMS, pairs.harmful, pairs.safe), rtol=1e-5, atol=1e-5)
    assert not part.batches.of([0], 0, part.steps).start.any()


def dpo_losses(attack, splits):
    batches, _ = attack.examples(tiny.tokenizer(), splits)
    layout = attack.fit(batches)
    optimizer, weights, losses = attack.tuning.optimizer.build(len(batches)), PARAMS, []
    state = optimizer.init(weights)

    @jax.jit
    def step(weights, state, pairs):
        def loss(weights):
            return preference_loss(MODEL, weights, PARAMS, pairs.harmful, pairs.safe, attack.beta)

        value, gradient = jax.value_and_grad(loss)(weights)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, value

    for batch in batches:
        weights, state, value = step(weights, state, attack.lay(batch, layout))
        losses.append(value)
    return np.stack(losses)


def test_other_data_another_seed_or_another_adapter_starts_another_way():
    fresh = (LoraSpec(2), LoraSpec(2), LoraSpec(3), LoraSpec(2, 4.0))
    tunings = [replace(ATTACK.tuning, lora=spec, seed=int(place == 1)) for place, spec in enumerate(fresh)]
    attacks = [HarmfulSFT(4, tuning) for tuning in tunings]
    (part,) = programs([*attacks, HarmfulSFT(4, replace(tunings[0], optimizer=AdamW(1e-3)))], tiny.tokenizer(), SPLITS)
    assert part.alike == (0, 1, 2, 3, 0)
    (part,) = programs([HarmfulSFT(4, ATTACK.tuning)], tiny.tokenizer(), SPLITS)
    own = part.own(PARAMS, KEY)
    assert share_first_steps(part, MODEL, PARAMS, own) == (own, None)
    (part,) = programs([HarmfulSFT(4, ATTACK.tuning)] * first_steps.SAVED, tiny.tokenizer(), SPLITS)
    own = part.own(PARAMS, KEY)
    assert share_first_steps(part, MODEL, PARAMS, own) == (own, None)


def test_attacks_come_back_in_the_order_given_whatever_their_program():
    first, last = _attacks(FULL), _attacks(ADAPTERS)
    mixed = [first[0], *last, *first[1:]]
    parts = programs(mixed, tiny.tokenizer(), SPLITS)
    assert [part.places for part in parts] == [(0, 4, 5), (1, 2, 3)]
    outcome = _run(mixed)
    for place, (specs, index) in enumerate(
        [(FULL, 0), (ADAPTERS, 0), (ADAPTERS, 1), (ADAPTERS, 2), (FULL, 1), (FULL, 2)]
    ):
        np.testing.assert_array_equal(outcome.losses[place], _run(_attacks(specs)).losses[index])


def _eqns(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _eqns(inner)


def test_members_with_adapters_share_each_base_product_and_make_no_gradient_or_copy_of_a_kernel():
    members = 3
    attacks = _attacks([LoraSpec(rank) for rank in (1, 2, 3)])
    (part,) = programs(attacks, tiny.tokenizer(), SPLITS)
    own = jax.eval_shape(part.own, PARAMS, KEY)
    state = jax.eval_shape(partial(map_members, Start(part.form, MODEL)), own, (PARAMS, None))
    inputs = (state, part.batches.shapes(members, part.steps), own), (PARAMS, 0, part.steps)
    together = partial(map_members, Stretch(part.form, MODEL))
    traced = jax.make_jaxpr(together)(*inputs)
    rows, columns = part.batches.step.tokens.shape
    kernels = {(24, 24), (24, 12), (24, 40), (40, 24)}
    shared, outputs = [], []
    for eqn in _eqns(traced.jaxpr):
        outputs += [out.aval.shape for out in eqn.outvars]
        if eqn.primitive.name == "dot_general" and eqn.invars[1].aval.shape in kernels:
            shared.append(eqn)
    # Seven projections, once forward and once backward, for all members: their rows are the product's free axes.
    assert len(shared) == 14
    for eqn in shared:
        assert eqn.params["dimension_numbers"][1] == ((), ())
        assert eqn.outvars[0].aval.size == members * rows * columns * eqn.outvars[0].aval.shape[-1]
    assert not [shape for shape in outputs if shape[-2:] in kernels and members in shape[:-2]]
    compiled = jax.jit(together).lower(*inputs).compile().as_text()
    unbatched = re.findall(r"= f32\[([\d,]+)\]\S* dot\((?!.*batch_dims)", compiled)
    sizes = [math.prod(map(int, shape.split(","))) for shape in unbatched]
    assert len([size for size in sizes if size in {members * rows * columns * width for width in (12, 24, 40)}]) == 14
    assert not re.findall(rf"f32\[{members},(?:2,)?(?:24,24|24,12|24,40|40,24)\]", compiled)


def test_a_wider_adapter_computes_the_same_and_its_padding_stays_zero():
    narrow = init(jax.random.key(0), PARAMS, LoraSpec(2))
    narrow = narrow._replace(lora=jax.tree.map(lambda leaf: leaf + 0.1, narrow.lora))
    wide = narrow._replace(lora=widen(narrow.lora, 4))
    logits = jax.jit(partial(small.plain_logits, MODEL))
    np.testing.assert_allclose(*(logits(each, small.tokens(1, 9)[0]) for each in (narrow, wide)), rtol=1e-5, atol=1e-5)
    found = [each["layers"]["self_attn"]["q_proj"] for each in _run(_attacks(ADAPTERS)).found]
    assert not found[0]["a"][..., 2:].any()
    assert not found[0]["b"][..., 2:, :].any()
    assert found[2]["b"][..., 2:, :].any()


@pytest.mark.parametrize("specs", [FULL, ADAPTERS])
def test_a_member_with_an_absurd_learning_rate_is_marked_and_its_neighbours_do_not_change_by_a_bit(specs):
    absurd = (OPTIMIZERS[0], replace(OPTIMIZERS[1], learning_rate=1e38), OPTIMIZERS[2])
    well, ill = _run(_attacks(specs)), _run(_attacks(specs, absurd))
    np.testing.assert_array_equal(ill.diverged, [False, True, False])
    for place in (0, 2):
        np.testing.assert_array_equal(ill.losses[place], well.losses[place])
        jax.tree.map(np.testing.assert_array_equal, ill.found[place], well.found[place])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(ill.found[1]))


@pytest.mark.parametrize("sizes", [{"fsdp": 4}, {"data": 2, "tensor": 2}, {"fsdp": 2, "tensor": 2, "slices": 2}])
def test_members_over_attack_and_weights_over_fsdp_and_tensor_give_what_one_device_gives(sizes):
    mesh = build(MeshSpec(attack=2, **sizes))
    attacks = _attacks(ADAPTERS)
    one, spread = _run(attacks), _run(attacks, shard(PARAMS, mesh), mesh)
    np.testing.assert_allclose(spread.losses, one.losses, rtol=1e-5)
    _close(spread.found, one.found)


def test_a_grid_is_the_product_of_its_axes_with_the_seed_fastest():
    population = Population(ATTACK, {"samples": [2, 3], "tuning.optimizer.b1": [0.5, 0.9]}, (0, 1, 2))
    members = population.members()
    assert [(each.samples, each.tuning.optimizer.b1, each.tuning.seed) for each in members[:4]] == [
        (2, 0.5, 0),
        (2, 0.5, 1),
        (2, 0.5, 2),
        (2, 0.9, 0),
    ]
    assert population.settings()[-1] == {"samples": 3, "tuning.optimizer.b1": 0.9, "tuning.seed": 2}
    assert len(members) == 12


def test_a_path_that_names_nothing_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'learning_rate'"):
        Population(ATTACK, {"tuning.optimizer.learning_rates": [1.0]}).members()
    with pytest.raises(UserError, match="unset"):
        Population(ATTACK, {"tuning.lora.rank": [1]}).members()
    with pytest.raises(UserError, match="at least one value"):
        Population(ATTACK, {"samples": []})


@pytest.mark.parametrize(
    ("path", "value", "kind"),
    [
        ("tuning.optimizer.learning_rate", "1e-3", "a number"),
        ("tuning.optimizer.learning_rate", None, "a number"),
        ("tuning.optimizer.b1", "0.9", "a number"),
        ("tuning.optimizer.max_grad_norm", "1", "a number or null"),
        ("tuning.optimizer", "adamw", "fields with _target_ of a Optimizer"),
        ("tuning.lora", 8, "fields with _target_: immunax.models.lora.LoraSpec or null"),
        ("tuning.epochs", 1.5, "a whole number"),
        ("samples", "10", "a whole number or null"),
        ("samples", True, "a whole number or null"),
    ],
)
def test_a_value_of_another_kind_than_its_field_is_refused_in_one_line(path, value, kind):
    with pytest.raises(UserError, match=re.escape(f"population grid {path}={value!r}: expected {kind}.")):
        Population(ATTACK, {path: [value]}).members()


def test_values_of_a_fields_kind_are_taken_whatever_made_them():
    grid = {
        "samples": [np.int64(3)],
        "tuning.optimizer": [Adafactor(1e-3)],
        "tuning.lora": [LoraSpec(2, targets=("q_proj",))],
        "tuning.lora.targets": [["k_proj"], ("v_proj", "q_proj")],
        "tuning.optimizer.learning_rate": [np.float32(0.5), 1],
    }
    assert len(Population(ATTACK, grid).members()) == 4
    with pytest.raises(UserError, match=r"population seed '0': expected a whole number\."):
        Population(ATTACK, seeds=["0"])
