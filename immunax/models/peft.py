"""Adapters as PEFT's folders (``adapter_config.json`` and ``adapter_model.safetensors``), in and out.

PEFT stores ``lora_A`` as ``[r, in]`` and ``lora_B`` as ``[out, r]`` for every layer; ours are ``a`` ``[L, in, r]`` and
``b`` ``[L, r, out]``. Both multiply the product by ``alpha / r``.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from immunax.models import families, hf, weights
from immunax.models.config import DecoderConfig
from immunax.models.families.fields import Fields
from immunax.models.families.tensors import Path as Keys
from immunax.models.families.tensors import Tensor
from immunax.models.lora import LoraSpec
from immunax.runtime import atomic, together
from immunax.runtime.errors import UserError, nearest, shown
from immunax.runtime.leader import is_leader
from immunax.runtime.projections import NAMES, PROJECTIONS

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"[^\0]{1,1000}")
_HARMLESS = frozenset(
    [
        "peft_type",
        "peft_version",
        "task_type",
        "base_model_name_or_path",
        "revision",
        "auto_mapping",
        "inference_mode",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "init_lora_weights",
        "eva_config",
        "megatron_core",
        "qalora_group_size",
    ]
)
"""Settings that leave what a saved adapter computes alone, or that its tensors show; any other has to be off."""
_OFF = (None, False, "none", [], {})
_INITIAL = (None, True, False, "gaussian", "orthogonal", "eva")
"""Ways to start an adapter that leave the base as it is; PiSSA, OLoRA, CorDA and LoftQ change it."""


def _table(config: DecoderConfig, spec: LoraSpec) -> dict[Keys, Tensor]:
    """The two tensors of each adapted projection, as :func:`immunax.models.families.tensors` has the base's."""
    base, blocks, table = families.tensors(config), {each.name: each.block for each in PROJECTIONS}, {}
    for target in spec.targets:
        if target not in NAMES:
            raise UserError(f"LoRA target {target!r}: expected some of {', '.join(NAMES)}.{nearest(target, NAMES)}")
        path = "layers", blocks[target], target
        kernel = base[*path, "kernel"]
        d_out, d_in = kernel.shape
        name = "base_model.model." + kernel.name.removesuffix("weight")
        table[*path, "a"] = Tensor(f"{name}lora_A.weight", (spec.rank, d_in), transpose=True)
        table[*path, "b"] = Tensor(f"{name}lora_B.weight", (d_out, spec.rank), transpose=True)
    return table


def is_adapter(path: Path) -> bool:
    """Whether a path is a folder of adapters, which has no model of its own in it."""
    return (path / CONFIG).is_file() and not (path / "config.json").is_file()


def base_of(directory: Path) -> tuple[str, str | None]:
    """The base model that an adapter names, a folder or Hub id, and its revision.

    Raises:
      UserError: it names none.
    """
    raw = weights.read_json(directory / CONFIG)
    name, revision = raw.get("base_model_name_or_path"), raw.get("revision")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(revision, str | None):
        raise UserError(
            f"{directory / CONFIG}: base_model_name_or_path is {shown(name)}; write the base's folder or Hub id into it."
        )
    return name, revision


def load(directory: Path | str, config: DecoderConfig, devices: Mesh | None = None) -> tuple[LoraSpec, dict]:
    """Reads a PEFT adapter.

    Args:
      directory: its folder.
      config: the decoder it belongs to.
      devices: the mesh that it is split over; None is the default device.

    Returns:
      The specification and the adapters, ``layers.self_attn.q_proj.{a, b}`` and so on, float32; a projection that has no
      adapter in some layers has zeros there.

    Raises:
      UserError: the folder is damaged, is no plain LoRA, or does not fit the decoder.
    """
    folder = Path(directory)
    raw = weights.read_json(folder / CONFIG)
    spec = _parse(raw, folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder}: no {WEIGHTS}; only safetensors are read, save the adapter with PEFT's save_pretrained."
        )
    shards = weights.Shards(folder, weights.scan(folder / WEIGHTS))
    spec = replace(spec, targets=_targets(shards))
    table = _table(config, spec)
    extra = set(shards.entries) - hf.names(config, table)
    if extra:
        raise UserError(
            f"{folder}: tensor {min(extra)!r} has no place in a LoRA adapter of this model; only plain LoRA has."
        )
    absent = _absent(raw, config, table, shards)
    for tensor in table.values():
        for name in hf.names(config, {("",): tensor}) - absent:
            shards.place(name, tensor.shape)

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.float32) if name in absent else shards.read_finite(name, shape)

    return spec, hf.assemble(config, table, read, devices)


def _absent(
    raw: Mapping[str, Any], config: DecoderConfig, table: Mapping[Keys, Tensor], shards: weights.Shards
) -> set[str]:
    """Names of the tensors that the adapter has not, and by its settings need not have."""
    modules, layers = raw.get("target_modules"), _layers(raw, config, shards.directory)
    # A pattern, a name with its layer in it or an exclusion leaves it to the tensors which layers are adapted.
    named = isinstance(modules, list) and all(each in NAMES for each in modules) and not raw.get("exclude_modules")
    absent = set()
    for tensor in table.values():
        other = (
            tensor.name.replace("lora_A", "lora_B")
            if "lora_A" in tensor.name
            else tensor.name.replace("lora_B", "lora_A")
        )
        for layer in range(config.n_layers):
            name = tensor.name.format(layer=layer)
            if name in shards.entries and layer not in layers:
                raise UserError(
                    f"{shards.directory}: tensor {name!r} is of a layer that layers_to_transform does not name."
                )
            wanted = (named and layer in layers) or other.format(layer=layer) in shards.entries
            if name not in shards.entries and not wanted:
                absent.add(name)
    return absent


def _layers(raw: Mapping[str, Any], config: DecoderConfig, folder: Path) -> set[int]:
    """The layers that the settings let be adapted."""
    chosen = raw.get("layers_to_transform")
    layers = [*range(config.n_layers)] if chosen is None else chosen if isinstance(chosen, list) else [chosen]
    if not all(isinstance(layer, int) and 0 <= layer < config.n_layers for layer in layers):
        raise UserError(
            f"{folder / CONFIG}: layers_to_transform {shown(chosen)}: expected some of the {config.n_layers} layers, from 0."
        )
    return set(layers)


def _parse(raw: Mapping[str, Any], folder: Path) -> LoraSpec:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise UserError(f"{folder / CONFIG}: peft_type {shown(kind)} is not supported; only 'LORA' is.")
    refused = [name for name, value in raw.items() if name not in _HARMLESS and value not in _OFF]
    refused += ["init_lora_weights"] if raw.get("init_lora_weights") not in _INITIAL else []
    if refused:
        name = min(refused)
        raise UserError(f"{folder / CONFIG}: {name} {shown(raw[name])} is not supported; only plain LoRA is.")
    fields = Fields(raw, str(folder / CONFIG))
    return LoraSpec(fields.count("r"), fields.number("lora_alpha"), ())


def _targets(shards: weights.Shards) -> tuple[str, ...]:
    # From the tensors, because target_modules may be a pattern such as "all-linear".
    modules = {found[1] for name in shards.entries if (found := re.search(r"(\w+)\.lora_", name))}
    unknown = modules - set(NAMES)
    if unknown or not modules:
        found = f"{min(unknown)!r} is no projection of this model" if unknown else "it has no LoRA tensors"
        raise UserError(f"{shards.directory}: {found}; expected adapters of {', '.join(NAMES)}.")
    return tuple(name for name in NAMES if name in modules)


def export(
    directory: Path | str,
    config: DecoderConfig,
    spec: LoraSpec,
    lora: Mapping[str, Any],
    base_model: str,
    dtype: str = "float32",
) -> None:
    """Writes a PEFT adapter, whole or not at all.

    Args:
      directory: the folder to make; an earlier adapter there is replaced.
      config: the decoder.
      spec: rank, alpha, targets, dropout, and layers, of which alone there will be tensors.
      lora: the adapters, :attr:`immunax.models.lora.Adapted.lora`.
      base_model: where PEFT finds the base: a folder or Hub id.
      dtype: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
      UserError: the adapters do not fit the specification, the folder holds something else, or the disk refuses.
    """
    atomic.check_replaceable(Path(directory), CONFIG)
    table, layers = _table(config, spec), spec.rows(config.n_layers)
    there = {tensor.name.format(layer=layer) for tensor in table.values() for layer in layers}
    tensors = {name: value for name, value in hf.split(config, table, lora) if name in there}
    with together.directory(directory) as folder:
        weights.write_file(folder / WEIGHTS, tensors, dtype)
        if is_leader():
            weights.write_json(folder / CONFIG, _describe(spec, base_model, layers))


def _describe(spec: LoraSpec, base_model: str, layers: tuple[int, ...]) -> dict:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": spec.rank,
        "lora_alpha": spec.alpha,
        "target_modules": sorted(spec.targets),
        "lora_dropout": spec.dropout,
        "layers_to_transform": None if spec.layers is None else list(layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
