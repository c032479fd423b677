"""Makes the reference outputs that ``test_parity.py`` and ``test_peft.py`` compare with, in PyTorch.

    uv run --with torch --with peft python tests/models/make_golden.py

For each family: a tiny random model saved by ``transformers``, token ids and its logits. For SmolLM2-135M-Instruct: the
GGUF is exported by :mod:`immunax.models.hub`, loaded by ``transformers``, and a slice of its logits kept. For PEFT: an
adapter of the ``llama2`` model saved by ``peft``, and the adapted logits. Finally the opposite direction is checked:
what immunax exports (weights, tokenizer, adapter) loads there and computes the same.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch
import transformers

import immunax.models.peft
from immunax.models import hub, weights
from immunax.models.lora import Adapted, LoraSpec
from immunax.models.lora import init as init_lora
from immunax.models.model import Model

GOLDEN = Path(__file__).parent / "golden"
SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALLER = {"vocab_size": 64, "intermediate_size": 24}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# Every variant shows within 24 tokens: the window is shorter, and the scaled band holds some of the four frequencies.
FAMILIES = {
    "llama2": transformers.LlamaConfig(**SIZES | {"num_key_value_heads": 4}),
    "llama3": transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3_ROPE),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=7),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=16),
    "smollm2": transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "olmo2": transformers.Olmo2Config(**SIZES | SMALLER),
    # Both caps bend what they cap, a head's size is not the width over the heads, and windows are in two of three layers.
    "gemma2": transformers.Gemma2Config(
        **SIZES | SMALLER | {"num_hidden_layers": 3},
        head_dim=6,
        query_pre_attn_scalar=10,
        sliding_window=7,
        attn_logit_softcapping=3.0,
        final_logit_softcapping=5.0,
    ),
}
TOKENS = np.random.default_rng(0).integers(0, 128, (2, 24)).astype(np.int32)
SENTENCE = "The capital of France is Paris, and in 1789 it rebelled."


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights so large that every part of the network matters to the fourth decimal of the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * noise if "norm" in name else 0.3 * noise)


def logits_of(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    """``[B, T, V]`` float32."""
    with torch.no_grad():
        return model.eval()(input_ids=torch.from_numpy(tokens).long()).logits.float().numpy()


def ours(config, params, tokens: np.ndarray) -> np.ndarray:
    """The same from :class:`~immunax.models.model.Model`."""
    model = Model(config)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(model.logits(params, model.apply(params, tokens, np.ones_like(tokens), positions).hidden))


def make_families() -> dict[str, np.ndarray]:
    """Saves each tiny model and returns its logits."""
    logits = {}
    for seed, (name, config) in enumerate(FAMILIES.items()):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        randomise(model, seed)
        model.save_pretrained(GOLDEN / name)
        (GOLDEN / name / "generation_config.json").unlink()
        logits[name] = logits_of(model, TOKENS % config.vocab_size)
    return logits


def make_adapter() -> np.ndarray:
    """Saves a random adapter of the ``llama2`` model and returns the adapted logits."""
    base = transformers.AutoModelForCausalLM.from_pretrained(GOLDEN / "llama2", dtype=torch.float32)
    settings = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM", bias="none"
    )
    adapted = peft.get_peft_model(base, settings)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    adapted.peft_config["default"].base_model_name_or_path = "llama2"
    adapted.save_pretrained(GOLDEN / "adapter")
    (GOLDEN / "adapter" / "README.md").unlink()
    # PEFT keeps the targets in a set, whose order changes from run to run.
    described = weights.read_json(GOLDEN / "adapter" / "adapter_config.json")
    described["target_modules"].sort()
    weights.write_json(GOLDEN / "adapter" / "adapter_config.json", described)
    return logits_of(adapted, TOKENS)


def make_smollm2(folder: Path) -> dict[str, np.ndarray]:
    """Exports SmolLM2, loads it in ``transformers`` and keeps every 500th logit and the normaliser."""
    checkpoint = hub.resolve("smollm2").load()
    hub.export(folder, checkpoint, checkpoint.params)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = np.asarray(tokenizer([SENTENCE]).input_ids, np.int32)
    assert tokens.tolist() == checkpoint.tokenizer([SENTENCE]).input_ids
    logits = logits_of(model, tokens)
    text = tokenizer.decode(model.generate(torch.from_numpy(tokens).long(), max_new_tokens=20, do_sample=False)[0])
    print(text)
    normaliser = torch.logsumexp(torch.from_numpy(logits), -1).numpy()
    return {"smollm2_135m_tokens": tokens, "smollm2_135m": logits[..., ::500], "smollm2_135m_normaliser": normaliser}


def check_exports(folder: Path) -> None:
    """What immunax writes, ``transformers`` and ``peft`` read, and compute the same with."""
    checkpoint = hub.resolve("smollm2").load()
    config, tokens = checkpoint.config, np.asarray(checkpoint.tokenizer([SENTENCE]).input_ids, np.int32)
    spec = LoraSpec(4, 8.0, ("q_proj", "o_proj", "up_proj"))
    fresh = init_lora(jax.random.key(0), checkpoint.params, spec)
    noisy = jax.tree.map(lambda leaf: leaf + 0.02 * jax.random.normal(jax.random.key(1), leaf.shape), fresh.lora)
    adapted = Adapted(checkpoint.params, noisy, jnp.float32(spec.scale))
    immunax.models.peft.export(folder / "adapter", config, spec, noisy, str(folder / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    theirs = logits_of(peft.PeftModel.from_pretrained(base, folder / "adapter"), tokens)
    np.testing.assert_allclose(ours(config, adapted, tokens), theirs, atol=2e-4)
    hub.export(folder / "merged", checkpoint, adapted, "bfloat16", max_shard_bytes=100_000_000)
    merged = transformers.AutoModelForCausalLM.from_pretrained(folder / "merged")
    assert merged.dtype == torch.bfloat16
    reread = hub.resolve(str(folder / "merged")).load()
    np.testing.assert_allclose(ours(config, reread.params, tokens), logits_of(merged.float(), tokens), atol=2e-4)
    print("exports load in transformers and peft")


def main() -> None:
    """Makes everything."""
    arrays = {"tokens": TOKENS, **make_families(), "adapter": make_adapter()}
    with tempfile.TemporaryDirectory() as temporary:
        arrays |= make_smollm2(Path(temporary) / "base")
        check_exports(Path(temporary))
    np.savez_compressed(GOLDEN / "logits.npz", **arrays)


if __name__ == "__main__":
    main()
