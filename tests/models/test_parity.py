"""Our decoder against ``transformers`` in PyTorch, from references that ``make_golden.py`` stored."""

from pathlib import Path

import jax
import numpy as np
import pytest

from immunax.models import families, hf, hf_config, hub, peft, weights
from immunax.models.lora import Adapted, merge
from immunax.models.model import Model
from immunax.runtime.mesh import MeshSpec, build, shard, shard_batch

GOLDEN = Path(__file__).parent / "golden"
LOGITS = np.load(GOLDEN / "logits.npz")
FAMILIES = ("llama2", "llama3", "mistral", "qwen2", "qwen3", "smollm2", "olmo2", "gemma2")


def read(family: str):
    config = hf_config.parse_config(weights.read_json(GOLDEN / family / "config.json"), family)
    return config, hf.assemble(config, families.tensors(config), weights.find(GOLDEN / family).read)


def logits(config, params, tokens: np.ndarray, segment_ids=None, positions=None) -> np.ndarray:
    model = Model(config)
    tokens = tokens % config.vocab_size
    if segment_ids is None:
        segment_ids, positions = np.ones_like(tokens), np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(model.logits(params, model.apply(params, tokens, segment_ids, positions).hidden))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_of_each_family_equal_those_of_transformers(family):
    config, params = read(family)
    np.testing.assert_allclose(logits(config, params, LOGITS["tokens"]), LOGITS[family], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("llama3", {"rope_scaling": None}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", {"rope_theta": 20000.0}),
        ("llama2", {"norm_eps": 1e-1}),
        ("olmo2", {"qk_norm": False}),
        ("olmo2", {"post_norm": False}),
        ("gemma2", {"windowed": (True,)}),
        ("gemma2", {"windowed": (False, True)}),
        ("gemma2", {"post_norm": False}),
        ("gemma2", {"norm_offset": 0.0}),
        ("gemma2", {"activation": "silu"}),
        ("gemma2", {"scale_embeddings": False}),
        ("gemma2", {"query_pre_attn_scalar": None}),
        ("gemma2", {"attention_cap": None}),
        ("gemma2", {"logit_cap": None}),
    ],
)
def test_the_reference_notices_a_variant_that_is_not_the_models(family, variant):
    config, params = read(family)
    other = type(config)(**{**vars(config), **variant})
    assert np.abs(logits(other, params, LOGITS["tokens"]) - LOGITS[family]).max() > 1e-2


@pytest.mark.parametrize("family", ["mistral", "olmo2", "gemma2"])
def test_padding_and_a_neighbour_in_the_row_change_no_logits(family):
    config, params = read(family)
    first, second = LOGITS["tokens"]
    row = np.concatenate([[5] * 3, first, second, [9] * 2])[None]
    segment_ids = np.repeat([0, 1, 2, 0], [3, 24, 24, 2])[None]
    positions = np.concatenate([[0] * 3, np.arange(24), np.arange(24), [0] * 2])[None]
    found = logits(config, params, row, segment_ids, positions)[0, 3:-2].reshape(2, 24, -1)
    np.testing.assert_allclose(found, LOGITS[family], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["olmo2", "gemma2"])
def test_a_mesh_changes_no_logits(family):
    config, params = read(family)
    model, tokens, mesh = Model(config), LOGITS["tokens"] % config.vocab_size, build(MeshSpec(data=2, fsdp=2, tensor=2))
    rows = tokens.repeat(2, axis=0), np.ones((4, 24), np.int32), np.broadcast_to(np.arange(24), (4, 24))
    with jax.set_mesh(mesh):
        compute = jax.jit(lambda weights, batch: model.logits(weights, model.apply(weights, *batch).hidden))
        found = compute(shard(params, mesh), shard_batch(rows, mesh))
    np.testing.assert_allclose(found[::2], LOGITS[family], atol=1e-4, rtol=0)


def test_an_adapter_that_peft_saved_gives_the_logits_that_peft_computes():
    config, params = read("llama2")
    spec, lora = peft.load(GOLDEN / "adapter", config)
    adapted = Adapted(params, lora, spec.scale)
    np.testing.assert_allclose(logits(config, adapted, LOGITS["tokens"]), LOGITS["adapter"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits(config, merge(adapted), LOGITS["tokens"]), LOGITS["adapter"], atol=1e-4, rtol=0)
    assert np.abs(LOGITS["adapter"] - LOGITS["llama2"]).max() > 1


def test_the_logits_of_smollm2_equal_those_of_transformers():
    smollm2 = hub.resolve("smollm2").load()
    computed = logits(smollm2.config, smollm2.params, LOGITS["smollm2_135m_tokens"])
    np.testing.assert_allclose(computed[..., ::500], LOGITS["smollm2_135m"], atol=1e-4, rtol=1e-5)
    normaliser = np.asarray(jax.nn.logsumexp(computed, axis=-1))
    np.testing.assert_allclose(normaliser, LOGITS["smollm2_135m_normaliser"], atol=1e-4, rtol=1e-5)
    words = [smollm2.tokenizer.decode(row) for row in LOGITS["smollm2_135m_tokens"][0]]
    predicted = smollm2.tokenizer.decode(computed[0, words.index(" is")].argmax())
    assert predicted == " Paris"
