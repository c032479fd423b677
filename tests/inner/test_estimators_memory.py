from functools import partial

import jax
import jax.numpy as jnp
import pytest

from immunax.inner.adapt import adapt
from immunax.inner.estimators import FirstOrder, Implicit, Reptile, Truncated, Unrolled
from immunax.inner.optimizers import AdamW

WIDTH = 256
WEIGHTS = 4 * WIDTH * WIDTH


def _loss(weights, batch):
    return jnp.mean(jnp.tanh(jnp.tile(batch, WIDTH // 8) @ weights["w"]) ** 2)


def _states(estimator, steps, checks):
    """Temporaries of the gradient of an outer loss through so many inner steps, counted in copies of the weights."""
    inner = adapt(_loss, AdamW(1e-3, eps_root=1e-16).build(steps), steps, estimator)

    def outer(weights, batches, held_out):
        if checks is None:
            return inner(weights, batches)["w"].sum()
        return inner.along(weights, batches, lambda at, batch: -_loss(at, batch), held_out)[1]

    rows = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    inputs = {"w": rows((WIDTH, WIDTH))}, rows((steps, 2, 8)), rows((checks or 1, 2, 8))
    return jax.jit(jax.value_and_grad(outer)).lower(*inputs).compile().memory_analysis().temp_size_in_bytes / WEIGHTS


@pytest.mark.parametrize(
    ("estimator", "checks"),
    [
        (FirstOrder(), lambda steps: 1),
        (FirstOrder(), lambda steps: steps // 4),
        (Reptile(), lambda steps: None),
        (Implicit(cg_steps=2), lambda steps: 1),
        (Truncated(4), lambda steps: steps // 4),
    ],
    ids=["first order", "first order along the way", "Reptile", "implicit", "truncated"],
)
def test_an_inner_loop_of_a_thousand_steps_holds_as_many_states_as_one_of_sixteen(estimator, checks):
    short, long = (_states(estimator, steps, checks(steps)) for steps in (16, 1000))
    assert long <= 1.05 * short + 0.05


def test_an_unrolled_loop_holds_states_that_grow_with_its_steps_and_the_root_of_them_where_they_are_made_again():
    kept, made_again = (
        [_states(Unrolled(remat), steps, None) for steps in (16, 64)] for remat in ("steps", "segments")
    )
    assert kept[1] > 3 * kept[0]
    assert made_again[1] < 2.5 * made_again[0]
