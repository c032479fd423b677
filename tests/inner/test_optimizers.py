import itertools
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from immunax.inner.optimizers import OF_RATES, Adafactor, AdamW, Muon, ScheduleFree, Sgd, decays
from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.runtime.errors import UserError


def test_rates_rise_over_the_warmup_and_fall_to_zero_after_the_last_step():
    rate = AdamW(1.0, schedule="linear", warmup=0.2).rate(10)
    np.testing.assert_allclose(
        [rate(t) for t in range(11)], [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    )
    cosine = AdamW(2.0, schedule="cosine").rate(8)
    np.testing.assert_allclose([cosine(0), cosine(4), cosine(8)], [2.0, 1.0, 0.0], atol=1e-6)
    assert float(AdamW(3.0).rate(5)(100)) == 3.0
    assert float(AdamW(3.0, schedule="cosine", warmup=0.9).rate(2)(1)) == 3.0


def test_an_update_is_adamw_on_the_clipped_gradient():
    optimizer = AdamW(0.1, weight_decay=0.01, max_grad_norm=1.0).build(4)
    weights, gradient = jnp.array([3.0, -1.0]), jnp.array([30.0, 40.0])
    updates, _ = optimizer.update(gradient, optimizer.init(weights), weights)
    clipped = gradient / 50.0
    np.testing.assert_allclose(updates, -0.1 * (clipped / (jnp.abs(clipped) + 1e-8) + 0.01 * weights), rtol=1e-5)


def test_schedules_are_those_of_transformers_and_torch():
    # Printed by torch 2.14 and transformers 5.24: get_cosine_schedule_with_warmup(3, 10), get_linear_schedule_with_warmup(3, 10)
    # and StepLR(3, gamma=0.85).
    cosine = [0, 0.3333333, 0.6666667, 1, 0.9504844, 0.8117449, 0.6112605, 0.3887395, 0.1882551, 0.0495156]
    linear = [0, 0.3333333, 0.6666667, 1, 0.8571429, 0.7142857, 0.5714286, 0.4285714, 0.2857143, 0.1428571]
    stair = [1, 1, 1, 0.85, 0.85, 0.85, 0.7225, 0.7225, 0.7225, 0.614125, 0.614125, 0.614125]
    from_zero = {"warmup_from_zero": True}
    for warmup in (3, 0.25):  # a quarter of ten steps is rounded up
        np.testing.assert_allclose(AdamW(1.0, "cosine", warmup, **from_zero).rates(10), cosine, atol=1e-6)
    np.testing.assert_allclose(AdamW(1.0, "linear", 3, **from_zero).rates(10), linear, atol=1e-6)
    np.testing.assert_allclose(AdamW(1.0, "step", stages=4).rates(12), stair, atol=1e-6)
    np.testing.assert_allclose(AdamW(1.0, "step", gamma=0.5, stages=2, warmup=1).rates(5), [1, 1, 1, 0.5, 0.5])


def test_a_warmup_in_steps_is_that_long_whatever_the_run():
    for steps in (4, 100):
        np.testing.assert_allclose(Sgd(2.0, warmup=4).rates(steps)[:4], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(Sgd(2.0, warmup=32).rates(3), [2 / 32, 4 / 32, 6 / 32])


GRADIENTS = [[3.0, 4.0, 0.1], [0.1, -0.2, 0.3], [-1.0, 2.0, 2.0], [0.5, 0.5, -0.5], [0.2, 0.1, 0.7]]


@pytest.mark.parametrize(
    ("optimizer", "weights"),
    [
        # torch.optim.AdamW after clip_grad_norm_(1.0), under get_cosine_schedule_with_warmup(1, 5)
        (
            AdamW(0.1, "cosine", 1, True, weight_decay=0.1, b1=0.8, b2=0.95, eps=1e-2),
            [0.8600756841, -2.0957225835, 2.7604379878],
        ),
        # schedulefree 1.4.1: AdamWScheduleFree(lr=0.1, warmup_steps=3, weight_decay=0.1, betas=(0.9, 0.95)) in training mode
        (
            ScheduleFree(0.1, warmup=3, weight_decay=0.1, b2=0.95, max_grad_norm=None),
            [0.9597187516, -2.0551175586, 2.6609956357],
        ),
    ],
    ids=["AdamW", "ScheduleFree"],
)
def test_five_steps_end_where_the_authors_optimizers_end(optimizer, weights):
    rule, at = optimizer.build(len(GRADIENTS)), jnp.array([1.0, -2.0, 3.0])
    state = rule.init(at)
    for gradient in GRADIENTS:
        updates, state = rule.update(jnp.array(gradient), state, at)
        at = optax.apply_updates(at, updates)
    np.testing.assert_allclose(at, weights, rtol=1e-6)


def test_a_restarted_optimizer_is_a_new_one_whose_schedule_goes_on():
    optimizer = AdamW(0.1, "linear", b1=0.5, weight_decay=0.1)
    weights, gradients = jnp.array([1.0, -2.0]), jax.random.normal(jax.random.key(0), (6, 2))
    rule = replace(optimizer, restart_every=2).build(6)

    def step(carry, gradient):
        at, state = carry
        updates, state = rule.update(gradient, state, at)
        return (optax.apply_updates(at, updates), state), None

    found = jax.lax.scan(step, (weights, rule.init(weights)), gradients)[0][0]
    rates = optimizer.rates(6)
    for block in range(3):
        fresh = optax.adamw(lambda count, block=block: rates[2 * block + count], b1=0.5, weight_decay=0.1)
        state = fresh.init(weights)
        for gradient in gradients[2 * block : 2 * block + 2]:
            clipped = gradient / max(1.0, float(jnp.linalg.norm(gradient)))
            updates, state = fresh.update(clipped, state, weights)
            weights = optax.apply_updates(weights, updates)
    np.testing.assert_allclose(found, weights, rtol=1e-5)


def test_members_may_differ_in_how_often_they_restart():
    weights, gradients = jnp.array([1.0, -2.0]), jax.random.normal(jax.random.key(0), (6, 2))
    members = [Sgd(0.1, momentum=0.9, restart_every=every) for every in (1, 2, 6)]

    def run(rule, state):
        def step(carry, gradient):
            at, state = carry
            updates, state = rule.update(gradient, state, at)
            return (optax.apply_updates(at, updates), state), None

        return jax.lax.scan(step, (weights, state), gradients)[0][0]

    form = members[0].form(["restart_every"])
    numbers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[each.numbers(6, ["restart_every"]) for each in members])
    together = jax.vmap(lambda own: run(form.build(1), form.build(1, own).init(weights)))(numbers)
    for found, member in zip(together, members, strict=True):
        np.testing.assert_allclose(found, run(member.build(6), member.build(6).init(weights)), rtol=1e-6)


def test_the_learning_rate_may_be_mapped_over():
    def moved(rate):
        optimizer = AdamW(rate, schedule="cosine", warmup=0.5).build(4)
        updates, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)), jnp.ones(2))
        return updates

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(moved)(rates), jnp.stack([moved(0.1), moved(0.2)]), rtol=1e-6)


def test_unknown_schedules_and_impossible_warmups_are_refused():
    with pytest.raises(UserError, match="Did you mean 'cosine'"):
        AdamW(schedule="cosin")
    for warmup in (1.0, -1, -0.1):
        with pytest.raises(UserError, match="warmup"):
            AdamW(warmup=warmup)
    for field in ("stages", "restart_every"):
        with pytest.raises(UserError, match=f"{field}=0: expected at least 1"):
            AdamW(**{field: 0})


@pytest.mark.parametrize(
    "optimizer", [AdamW(0.05), Sgd(0.05, momentum=0.9), Adafactor(0.05), Muon(0.05), ScheduleFree(0.05)]
)
def test_every_optimizer_descends_and_decays_matrices_alone(optimizer):
    weights = {"kernel": jnp.ones((2, 4, 3)), "scale": jnp.full((2, 3), 2.0)}

    def loss(weights):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in weights.values())

    @jax.jit
    def run(weights):
        rule = optimizer.build(20)

        def step(carry, _):
            weights, state = carry
            updates, state = rule.update(jax.grad(loss)(weights), state, weights)
            return (optax.apply_updates(weights, updates), state), None

        return jax.lax.scan(step, (weights, rule.init(weights)), length=20)[0][0]

    assert loss(run(weights)) < 0.6 * loss(weights)
    rule = replace(optimizer, weight_decay=0.1).build(1)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, weights), rule.init(weights), weights)
    np.testing.assert_allclose(updates["kernel"], -0.05 * 0.1 * weights["kernel"], rtol=1e-5)
    np.testing.assert_array_equal(updates["scale"], 0.0)
    rule = replace(optimizer, weight_decay=0.1, decays_norms=True).build(1)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, weights), rule.init(weights), weights)
    np.testing.assert_allclose(updates["scale"], -0.05 * 0.1 * weights["scale"], rtol=1e-5)


STEPS = 4
OTHER = {
    "learning_rate": 0.03, "weight_decay": 0.3, "max_grad_norm": 0.4, "momentum": 0.6, "b1": 0.5, "b2": 0.9, "eps_root": 0.01,
    "eps": 0.02, "restart_every": 3, "decays_norms": True,
}  # fmt: skip
KINDS = [AdamW(0.05), Sgd(0.05), Adafactor(0.05), Muon(0.05), ScheduleFree(0.05)]


def _shape(o, t):
    """The rate of step t over the peak."""
    rising = o.warmup if isinstance(o.warmup, int) else round(o.warmup * STEPS)
    if t < rising:
        return (t + (not o.warmup_from_zero)) / rising
    place = (t - rising) / (STEPS - rising)
    falls = {"constant": 1, "linear": 1 - place, "cosine": 0.5 + 0.5 * np.cos(np.pi * place)}
    return o.gamma ** np.floor(place * o.stages) if o.schedule == "step" else falls[o.schedule]


SCHEDULES = [
    {},
    {"schedule": "cosine", "warmup": 0.5},
    {"schedule": "step", "gamma": 0.3, "stages": 2},
    {"schedule": "linear", "warmup": 3, "warmup_from_zero": True},
]


def _reference(optimizer):
    """The same rule from optax's own aliases and plain numbers, with norms left out of the decay by hand."""
    o, matrices = optimizer, {"kernel": True, "scale": False}
    table = [o.learning_rate * _shape(o, t) for t in range(STEPS)]
    rates = jnp.array(table)
    rate, decay = (lambda count: rates[count]), o.weight_decay
    if isinstance(o, AdamW):
        rule = optax.adamw(rate, o.b1, o.b2, o.eps, o.eps_root, weight_decay=decay, mask=matrices)
    elif isinstance(o, Sgd):
        rule = optax.chain(
            optax.trace(o.momentum),
            optax.masked(optax.add_decayed_weights(decay), matrices),
            optax.scale_by_schedule(lambda count: -rates[count]),
        )
    elif isinstance(o, Adafactor):
        rule = optax.adafactor(
            rate,
            multiply_by_parameter_scale=False,
            weight_decay_rate=lambda count: decay * rates[count],
            weight_decay_mask=matrices,
        )
    elif isinstance(o, Muon):
        numbers = {"kernel": optax.contrib.MuonDimensionNumbers(1, 2), "scale": None}
        rule = optax.contrib.muon(
            rate,
            beta=o.momentum,
            weight_decay=decay,
            adam_eps_root=o.eps_root,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=numbers,
        )
    else:
        base = optax.adamw(rate, 0.0, o.b2, o.eps, o.eps_root, weight_decay=decay, mask=matrices)
        # Its own count starts at 1, where its base rule's starts at 0: both mean this step's rate.
        rule = optax.contrib.schedule_free(base, lambda count: rates[count - 1], b1=o.b1)
    return optax.chain(optax.clip_by_global_norm(o.max_grad_norm), rule)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_member_equals_the_descent_alone_whatever_field_and_schedule_it_differs_in(kind):
    rng = np.random.default_rng(0)
    weights = {"kernel": jnp.asarray(rng.normal(size=(2, 4, 3)), "f4"), "scale": jnp.ones((2, 3))}
    batches = jnp.asarray(rng.normal(size=(STEPS, 2, 4, 3)), "f4")
    numeric = [each.name for each in fields(kind) if isinstance(each.default, float) and each.name not in OF_RATES]
    names = ["learning_rate", *numeric]
    assert {each.name for each in fields(kind)} <= {*OTHER, *OF_RATES}
    members = [replace(kind, **schedule, **{name: OTHER[name]}) for schedule in SCHEDULES[:2] for name in names]
    members += [replace(kind, **schedule) for schedule in SCHEDULES[2:]]

    def loss(weights, batch):
        return jnp.mean(jnp.square(weights["kernel"] * weights["scale"][:, None] - batch))

    def run(optimizer, state):
        return scan_steps(slope_of(loss), optimizer, state, batches)[0].trained

    settings = [names[1:]] * len(members)
    (form,) = {member.form(each) for member, each in zip(members, settings, strict=True)}
    numbers = [member.numbers(STEPS, each) for member, each in zip(members, settings, strict=True)]
    numbers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *numbers)
    together = jax.jit(jax.vmap(lambda numbers: run(form.build(STEPS), begin(form.build(STEPS, numbers), weights))))(
        numbers
    )
    alone = jax.jit(lambda: [run(rule, begin(rule, weights)) for rule in (each.build(STEPS) for each in members)])()
    expected = jax.jit(lambda: [run(rule, begin(rule, weights)) for rule in map(_reference, members)])()
    for i, (one, other) in enumerate(zip(alone, expected, strict=True)):
        for name in weights:
            np.testing.assert_allclose(together[name][i], one[name], rtol=2e-5, atol=2e-6)
            np.testing.assert_allclose(one[name], other[name], rtol=2e-5, atol=2e-6)
    ends = np.asarray(together["kernel"])
    assert all(not np.array_equal(a, b) for a, b in itertools.combinations(ends, 2))


def test_gradients_may_stay_as_they_are():
    rule = Sgd(0.1, max_grad_norm=None).build(1)
    updates, _ = rule.update(jnp.array([300.0, 400.0]), rule.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(updates, [-30.0, -40.0], rtol=1e-6)


def test_what_no_weight_decay_reaches_is_known_by_its_name_in_any_tree():
    tree = {"layers": {"q_proj": {"kernel": 1, "bias": 1, "a": 1}, "norm": {"scale": 1}}, "embedding": 1}
    wanted = {
        "layers": {"q_proj": {"kernel": True, "bias": False, "a": True}, "norm": {"scale": False}},
        "embedding": True,
    }
    assert decays(tree) == wanted
    assert decays(1) is True


def test_sgd_with_momentum_sums_its_gradients():
    rule = Sgd(0.1, momentum=0.5, max_grad_norm=10.0).build(2)
    state = rule.init(jnp.zeros(1))
    first, state = rule.update(jnp.array([1.0]), state, jnp.zeros(1))
    second, _ = rule.update(jnp.array([2.0]), state, jnp.zeros(1))
    np.testing.assert_allclose([first[0], second[0]], [-0.1, -0.25], rtol=1e-6)


def test_muon_orthogonalises_each_layers_matrix_alone():
    weights = {"kernel": jnp.zeros((3, 8, 8)), "scale": jnp.zeros((3, 8))}
    gradient = {"kernel": jax.random.normal(jax.random.key(0), (3, 8, 8)), "scale": jnp.ones((3, 8))}
    rule = Muon(1.0, max_grad_norm=100.0).build(1)
    updates, _ = rule.update(gradient, rule.init(weights), weights)
    singular = jnp.linalg.svd(updates["kernel"], compute_uv=False)
    # Newton-Schulz brings singular values to 0.7 ... 1.2, whatever they were; the rest moves by the rate of AdamW's, which
    # optax gives Nesterov's momentum: 1 + b1 / (1 + b1) at the first step.
    assert float(singular.max() / singular.min()) < 3 < float(jnp.linalg.cond(gradient["kernel"]).max())
    np.testing.assert_allclose(updates["scale"], -(1 + 0.9 / 1.9) * jnp.ones((3, 8)), rtol=1e-4)
