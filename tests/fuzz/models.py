"""Small models for :mod:`fuzz.parsers`, written by the package itself, and how each of their files is read."""

import copy
from pathlib import Path

import gguf as library
import numpy as np
import tiny
from fuzz import mutations, templates
from fuzz.parser import Parser

from immunax.data.chat import encode_all
from immunax.data.contract import asked, written
from immunax.data.dialog import Dialog, Message
from immunax.data.spelling import speller
from immunax.models import families, hf_config, peft, weights
from immunax.models.hub import ModelSource, digests

_GOLDEN = Path(__file__).parents[1] / "models" / "golden"
_DIALOGS = [
    Dialog((Message("user", "the cat?"),), "it sat"),
    Dialog((Message("system", "be kind"), Message("user", "and the mat?")), "the same\n"),
]


def _model(family: str, shard: int = 1 << 30):
    def make(folder: Path) -> None:
        raw = {**weights.read_json(_GOLDEN / family / "config.json"), "vocab_size": 304}
        config, rng = hf_config.parse_config(raw, family), np.random.default_rng(0)
        tensors = [
            (tensor.name.format(layer=layer), rng.normal(size=tensor.shape).astype(np.float32))
            for tensor in families.tensors(config).values()
            for layer in range(config.n_layers if tensor.stacked else 1)
        ]
        weights.write_shards(folder, tensors, "float32", shard)
        weights.write_json(folder / "config.json", raw)
        weights.write_json(folder / "generation_config.json", {"eos_token_id": [2, 4], "max_length": 512})
        tiny.tokenizer().save_pretrained(folder)
        weights.write_json(folder / "special_tokens_map.json", {"pad_token": "<pad>", "eos_token": "<eos>"})
        weights.write_json(folder / "added_tokens.json", {"<|im_start|>": 3})

    return make


def _load(folder: Path) -> None:
    source = ModelSource(str(folder))
    source.shape()
    checkpoint = source.load()
    if checkpoint.tokenizer.chat_template is not None:
        asked(checkpoint.tokenizer, _DIALOGS)
        written(checkpoint.tokenizer, _DIALOGS)
    encode_all(checkpoint.tokenizer, _DIALOGS, 512)
    speller(checkpoint.tokenizer).said(range(304))
    # What was loaded is in the digests of the folder, and nothing else.
    found = digests(folder)
    assert all(found[name] == value for name, value in checkpoint.digests.items())


def _gguf(folder: Path) -> None:
    raw = weights.read_json(_GOLDEN / "llama2" / "config.json")
    config, rng = hf_config.parse_config({**raw, "vocab_size": 104}, "llama2"), np.random.default_rng(0)
    writer = library.GGUFWriter(folder / "model.gguf", "llama")
    for name, value in {
        "block_count": config.n_layers,
        "context_length": config.max_positions,
        "embedding_length": config.d_model,
        "feed_forward_length": config.d_ff,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
    }.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    alphabet = sorted(tiny.tokenizer().backend_tokenizer.pre_tokenizer.pre_tokenize_str("abc !"))
    tokens = ["<s>", "</s>", *dict.fromkeys("".join(piece for piece, _ in alphabet)), "!!"]
    tokens += [f"w{number}" for number in range(104 - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * 102])
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for m in messages %}{{ m['role'] + m['content'] + '</s>' }}{% endfor %}assistant")
    names = library.get_tensor_name_map(library.MODEL_ARCH.LLAMA, config.n_layers)
    for tensor in families.tensors(config).values():
        for layer in range(config.n_layers if tensor.stacked else 1):
            name = names.get_name(tensor.name.format(layer=layer), (".weight",))
            array = rng.normal(size=tensor.shape).astype(np.float32)
            if layer and array.ndim == 2 and array.shape[1] % 32 == 0:
                kind = library.GGMLQuantizationType.Q8_0
                writer.add_tensor(name, library.quantize(array, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _adapter(folder: Path) -> None:
    for path in (_GOLDEN / "adapter").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def _read_adapter(folder: Path) -> None:
    config = hf_config.parse_config(weights.read_json(_GOLDEN / "llama2" / "config.json"), "llama2")
    peft.base_of(folder)
    peft.load(folder, config)


def _template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(tiny.tokenizer().chat_template)


def _render(folder: Path) -> None:
    tokenizer = copy.copy(tiny.tokenizer())
    tokenizer.chat_template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    written(tokenizer, _DIALOGS)


PARSERS = (
    Parser("config", _model("llama2"), _load, {"config.json": mutations.document}),
    Parser("config_qwen", _model("qwen2"), _load, {"config.json": mutations.document}),
    Parser("config_gemma", _model("gemma2"), _load, {"config.json": mutations.document}),
    Parser("generation_config", _model("qwen3"), _load, {"generation_config.json": mutations.document}),
    Parser(
        "tokenizer_config",
        _model("qwen3"),
        _load,
        {
            "tokenizer_config.json": mutations.document,
            "special_tokens_map.json": mutations.document,
            "added_tokens.json": mutations.document,
            "chat_template.jinja": templates.mutated,
        },
    ),
    Parser("tokenizer", _model("qwen3"), _load, {"tokenizer.json": mutations.document}),
    Parser("index", _model("mistral", 20_000), _load, {"model.safetensors.index.json": mutations.document}),
    Parser("safetensors", _model("mistral"), _load, {"model.safetensors": mutations.safetensors}),
    Parser(
        "adapter",
        _adapter,
        _read_adapter,
        {"adapter_config.json": mutations.document, "adapter_model.safetensors": mutations.safetensors},
    ),
    Parser("gguf", _gguf, lambda folder: _load_gguf(folder / "model.gguf"), {"model.gguf": mutations.gguf}),
    Parser("template", _template, _render, {"chat_template.jinja": templates.mutated}),
)


def _load_gguf(path: Path) -> None:
    source = ModelSource(str(path))
    source.shape()
    source.load()
