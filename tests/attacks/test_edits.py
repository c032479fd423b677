from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.edit import matrices
from immunax.attacks.embedding_attack import EmbeddingAttack
from immunax.attacks.latent_attack import LatentAttack
from immunax.attacks.merge import Merge
from immunax.attacks.prune import Prune
from immunax.attacks.quantize import Quantize
from immunax.attacks.refusal_ablation import ablated
from immunax.attacks.weight_noise import WeightNoise
from immunax.campaign.grid import Population
from immunax.data.dialog import Split, Splits, ask
from immunax.models.families import FAMILIES
from immunax.models.model import Model
from immunax.runtime.errors import UserError

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
HARMFUL = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))
SAFE = tuple(ask(f"how to {i}", f"no, not {i}") for i in range(6))
RETAIN = tuple(ask(f"what is {i}", f"it is {i}") for i in range(6))
SPLITS = Splits(Split(), Split(SAFE, HARMFUL, RETAIN), validation=Split(harmful=HARMFUL[:3]))
KEY = jax.random.key(0)


def attacked(attack):
    material = attack.material(tiny.tokenizer(), SPLITS)
    return material, *jax.jit(lambda params, material: attack.edit(MODEL, params, material, KEY))(PARAMS, material)


@pytest.mark.parametrize("sparsity", [0.1, 0.5])
def test_pruning_sets_the_smallest_weights_of_every_matrix_to_zero(sparsity):
    _, pruned, losses = attacked(Prune(sparsity))
    assert losses.shape == (0,)
    for path, before in matrices(PARAMS).items():
        for layer, after in zip(before, matrices(pruned)[path], strict=True):
            gone = np.asarray(after == 0)
            assert gone.mean() == pytest.approx(sparsity, abs=2 / gone.size)
            assert np.abs(layer[gone]).max() <= np.abs(layer[~gone]).min()
            np.testing.assert_array_equal(after[~gone], layer[~gone])
    np.testing.assert_array_equal(pruned["embed_tokens"]["embedding"], PARAMS["embed_tokens"]["embedding"])


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 4)])
def test_quantized_weights_are_integers_of_their_scale_and_off_by_half_a_step_at_most(bits, group):
    _, rounded, _ = attacked(Quantize(bits, group))
    for path, before in matrices(PARAMS).items():
        layers, inputs, outputs = before.shape
        size = group or inputs
        one, other = (np.asarray(each).reshape(layers, -1, size, outputs) for each in (before, matrices(rounded)[path]))
        step = np.abs(one).max(axis=2, keepdims=True) / (2 ** (bits - 1) - 1)
        assert (np.abs(one - other) <= step / 2 + 1e-7).all()
        whole = other / step
        np.testing.assert_allclose(whole, np.round(whole), atol=1e-3)
    with pytest.raises(UserError, match="does not divide"):
        attacked(Quantize(4, 7))


def test_noise_has_the_scale_that_was_asked_for_and_another_key_draws_another():
    _, noisy, _ = attacked(WeightNoise(0.2))
    for path, before in matrices(PARAMS).items():
        change = np.asarray(matrices(noisy)[path] - before)
        size = np.sqrt(np.mean(np.square(before), axis=(1, 2)))
        np.testing.assert_allclose(change.std(axis=(1, 2)), 0.2 * size, rtol=0.15)
    other, _ = WeightNoise(0.2).edit(MODEL, PARAMS, (), jax.random.key(1))
    assert not np.array_equal(matrices(other)[path], matrices(noisy)[path])


class UserConfig:
    params = jax.tree.map(lambda leaf: leaf + 1.0, PARAMS)

    def load(self):
        return self


def test_merging_lies_on_the_line_between_two_models():
    _, merged, _ = attacked(Merge(UserConfig(), 0.25))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 0.25, rtol=1e-5, atol=1e-6), merged, PARAMS)
    with pytest.raises(UserError, match="null"):
        attacked(Merge())


@pytest.mark.parametrize("family", ["llama", "olmo2", "gemma2"])
def test_an_ablated_direction_is_never_written_to_the_stream(family):
    model = replace(MODEL, config=replace(MODEL.config, **FAMILIES[family].fixed))
    # Norms that are not even, or their scales would leave a direction alone.
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * jax.random.normal(KEY, leaf.shape) if leaf.ndim < 3 else leaf,
        small.params(model=model),
    )
    direction = jax.random.normal(jax.random.key(3), (24,))
    direction = direction / jnp.linalg.norm(direction)
    tokens = small.tokens(2, 9)
    ones, places = jnp.ones_like(tokens), jnp.arange(9)[None].repeat(2, 0)
    before, after = (
        model.apply(weights, tokens, ones, places, capture=True).residuals @ direction
        for weights in (params, ablated(model, params, direction))
    )
    assert np.abs(before).max() > 0.1
    np.testing.assert_allclose(after, 0, atol=1e-5)


@pytest.mark.parametrize(
    "attack", [EmbeddingAttack(4, 8, 0.01, samples=6), LatentAttack((0, 1.0), 3.0, 8, samples=6, learning_rate=0.3)]
)
def test_steering_vectors_make_harmful_answers_likelier_and_leave_the_weights_alone(attack):
    _, steered, losses = attacked(attack)
    assert losses.shape == (8,)
    assert losses[-1] < losses[0]
    jax.tree.map(np.testing.assert_array_equal, steered.base, PARAMS)


def test_a_latent_attack_stays_within_its_ball_at_its_rows():
    _, steered, _ = attacked(LatentAttack((0, 1.0), 0.5, 8, samples=6, learning_rate=0.3))
    sizes = np.linalg.norm(steered.offsets, axis=-1)
    assert (sizes <= 0.5 + 1e-5).all()
    assert sizes[0] > 0.4
    assert sizes[1] == 0
    assert not steered.prompt.any()


@pytest.mark.parametrize("attack", [Prune(), Quantize(), Merge()])
def test_several_seeds_of_an_attack_that_draws_nothing_are_refused(attack):
    with pytest.raises(UserError, match="give one seed"):
        Population(attack, seeds=[0, 1])
    assert len(Population(attack, seeds=[3]).members()) == 1
