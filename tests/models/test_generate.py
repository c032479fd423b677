from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from immunax.models.families import FAMILIES
from immunax.models.generate import NOT_FINITE, Decoding, generate
from immunax.models.lora import LoraSpec, init
from immunax.models.model import DECODINGS, Model
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build, shard, shard_batch

LENGTHS = (7, 3, 5)
ROWS = [list(np.asarray(small.tokens(1, n, seed=n)[0])) for n in LENGTHS]

VARIANTS = {
    "plain": {},
    "windowed": {"sliding_window": 4},
    "olmo2": FAMILIES["olmo2"].fixed,
    "gemma2": {
        **FAMILIES["gemma2"].fixed,
        "sliding_window": 4,
        "windowed": (True, False),
        "query_pre_attn_scalar": 10,
        "attention_cap": 2.0,
        "logit_cap": 3.0,
    },
}


def _pad(side):
    width = max(LENGTHS) + 2
    tokens, real = np.zeros((3, width), np.int32), np.zeros((3, width), np.int32)
    for i, row in enumerate(ROWS):
        where = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        tokens[i, where], real[i, where] = row, 1
    return jnp.asarray(tokens), jnp.asarray(real)


def _greedy_without_cache(model, weights, row, steps, stop=()):
    row, start = list(row), len(row)
    for _ in range(steps):
        row.append(int(jnp.argmax(small.plain_logits(model, weights, row)[-1])))
        if row[-1] in stop:
            break
    answer = row[start:]
    return answer + [-1] * (steps - len(answer))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_cached_batched_decoding_equals_recomputing_each_sequence_alone(side, variant):
    model = Model(replace(small.CONFIG, **variant))
    weights = small.params(model=model)
    decode = jax.jit(generate, static_argnums=(0, 4, 5))
    answers = decode(model, weights, *_pad(side), (), Decoding(6))
    expected = [_greedy_without_cache(model, weights, row, 6) for row in ROWS]
    np.testing.assert_array_equal(answers, expected)


@pytest.mark.parametrize("decoding", [Decoding(6), Decoding(6, temperature=1.0, top_p=0.9)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("variant", ["plain", "gemma2"])
def test_written_out_layers_write_the_tokens_that_scanned_ones_do(variant, decoding):
    model = Model(replace(small.CONFIG, **VARIANTS[variant]))
    weights = small.params(model=model)
    decode = jax.jit(generate, static_argnums=(0, 4, 5))
    answers = [
        decode(replace(model, decoding=each), weights, *_pad("left"), (), decoding, jax.random.key(0))
        for each in DECODINGS
    ]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("spec", [MeshSpec(fsdp=4), MeshSpec(data=2, tensor=2)])
def test_written_out_layers_of_adapted_weights_answer_alike_on_a_mesh(spec):
    adapted = init(jax.random.key(0), small.params(), LoraSpec(2))
    adapted = adapted._replace(lora=jax.tree.map(lambda leaf: leaf + 0.3, adapted.lora))
    prompts = [jnp.pad(part, ((0, 1), (0, 0)), mode="edge") for part in _pad("right")]
    decode = jax.jit(generate, static_argnums=(0, 4, 5))
    alone = decode(small.MODEL, adapted, *prompts, (), Decoding(5))
    assert not np.array_equal(alone, decode(small.MODEL, adapted.base, *prompts, (), Decoding(5)))
    mesh = build(spec)
    with jax.set_mesh(mesh):
        weights, rows = shard(adapted, mesh), shard_batch(prompts, mesh)
        together = decode(replace(small.MODEL, decoding="unrolled"), weights, *rows, (), Decoding(5))
    np.testing.assert_array_equal(alone, together)


def test_a_token_takes_no_layer_out_of_the_stack_where_layers_are_written_out():
    kernel = small.params()["layers"]["mlp"]["up_proj"]["kernel"].shape
    reads = {}
    for each in DECODINGS:
        model = replace(small.MODEL, decoding=each)
        decode = partial(generate, model, stop=(), decoding=Decoding(4))
        equations = jax.make_jaxpr(decode)(small.params(), *_pad("right")).eqns
        loop = [equation for equation in equations if equation.primitive.name == "while"][-1]
        reads[each] = kernel in {value.aval.shape for value in loop.invars}
    assert reads == {"scanned": True, "unrolled": False}


def test_an_answer_ends_at_its_stop_token_and_the_others_go_on():
    weights = small.params()
    free = [_greedy_without_cache(small.MODEL, weights, row, 6) for row in ROWS]
    stop = (free[0][1],)
    answers = generate(small.MODEL, weights, *_pad("right"), stop, Decoding(6))
    np.testing.assert_array_equal(answers, [_greedy_without_cache(small.MODEL, weights, row, 6, stop) for row in ROWS])
    assert int(answers[0, 2]) == -1


def test_sampled_answers_follow_the_key_and_the_models_distribution():
    weights, prompts = small.params(), _pad("right")
    many = [jnp.repeat(part[:1], 2000, 0) for part in prompts]
    drawn = generate(small.MODEL, weights, *many, (), Decoding(1, temperature=1.0), jax.random.key(1))[:, 0]
    again = generate(small.MODEL, weights, *many, (), Decoding(1, temperature=1.0), jax.random.key(1))[:, 0]
    np.testing.assert_array_equal(drawn, again)
    probability = np.asarray(jax.nn.softmax(small.plain_logits(small.MODEL, weights, ROWS[0])[-1]))
    frequency = np.bincount(np.asarray(drawn), minlength=small.CONFIG.vocab_size) / 2000
    assert np.abs(frequency - probability).max() < 5 * np.sqrt(0.25 / 2000)


def test_nucleus_sampling_never_leaves_the_smallest_set_that_holds_its_mass():
    weights, prompts = small.params(), _pad("right")
    many = [jnp.repeat(part[:1], 2000, 0) for part in prompts]
    drawn = generate(small.MODEL, weights, *many, (), Decoding(1, temperature=1.0, top_p=0.5), jax.random.key(2))[:, 0]
    probability = np.asarray(jax.nn.softmax(small.plain_logits(small.MODEL, weights, ROWS[0])[-1]))
    order = np.argsort(-probability)
    nucleus = set(order[: int(np.searchsorted(np.cumsum(probability[order]), 0.5)) + 1])
    assert set(np.asarray(drawn).tolist()) == nucleus


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="top_p"):
        Decoding(4, top_p=0.0)
    with pytest.raises(ValueError, match="key"):
        generate(small.MODEL, small.params(), *_pad("left"), (), Decoding(2, temperature=1.0))


def test_an_answer_ends_where_the_logits_are_not_finite_and_the_others_go_on():
    weights = small.params()
    rows = [list(row) for row in ROWS]
    spoiled = int(_greedy_without_cache(Model(small.CONFIG), weights, rows[0], 1)[0])
    others = _greedy_without_cache(Model(small.CONFIG), weights, rows[1], 4)
    assert spoiled not in (*rows[0], *rows[1], *rows[2], *others)
    # What the first row writes next has no finite embedding; the output projection keeps its own matrix.
    model = Model(replace(small.CONFIG, tie_embeddings=False))
    table = weights["embed_tokens"]["embedding"]
    broken = {**weights, "embed_tokens": {"embedding": table.at[spoiled].set(jnp.nan)}, "lm_head": {"kernel": table.T}}
    answers = jax.jit(generate, static_argnums=(0, 4, 5))(model, broken, *_pad("right"), (), Decoding(4))
    assert answers[0].tolist() == [spoiled, NOT_FINITE, -1, -1]
    assert answers[1].tolist() == others
    everything = jax.tree.map(lambda leaf: leaf * jnp.nan, weights)
    answers = jax.jit(generate, static_argnums=(0, 4, 5))(
        Model(small.CONFIG), everything, *_pad("right"), (), Decoding(4)
    )
    assert answers[:, 0].tolist() == [NOT_FINITE] * 3
