"""The model that is certified, and the one that it is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from immunax.models import speech
from immunax.models.hub import ModelSource, digests
from immunax.models.model import Params
from immunax.runtime import digest, manifest, mirror, names
from immunax.runtime.admission import admit
from immunax.runtime.errors import UserError
from immunax.runtime.user_config import UserConfig
from immunax.stages.guard import Start, start_model
from immunax.stages.provenance import made_by
from immunax.stages.setup import MODEL, ModelRecipe, Parts, Setup, load, near, set_up

_MANIFEST = "the manifest of the model's run"


class Subject(NamedTuple):
    """A model.

    Attributes:
      name: as the certificate calls it.
      params: plain float32 weights, on the mesh of the setup.
      digests: SHA-256 by file, or of the weights where they come from no file.
      weights: SHA-256 of all tensors in float32, whatever files hold them (:func:`~immunax.runtime.digest.of_tree`).
      folder: of the files, or None.
      record: the manifest of the run that made it, or None.
      speech: SHA-256 of its tokenizer and chat template, from :func:`~immunax.models.speech.digests`.
    """

    name: str
    params: Params
    digests: Mapping[str, str]
    weights: str
    folder: Path | None
    record: Mapping[str, Any] | None
    speech: Mapping[str, str | None]

    def parameters(self) -> int:
        """How many weights it has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))


class Undefended(NamedTuple):
    """The model before its guard.

    Attributes:
      params: plain float32 weights, on the mesh of the setup.
      weights: SHA-256 of all tensors.
      anew: whether it is no model of files but is trained here, which other versions of a library do to other bits.
    """

    params: Params
    weights: str
    anew: bool


@dataclass(frozen=True)
class Asked:
    """The models that a certificate is to be about.

    Attributes:
      parts: the model, with the data and how it is computed.
      start: the guard that it gets first, if any.
      reference: what it is compared with; None for the start model of the run that made it.
    """

    parts: Parts
    start: Start
    reference: ModelRecipe | None = None

    @staticmethod
    def given(config: UserConfig) -> "Asked":
        """What a user asks for, in a configuration from :func:`exported`."""
        other = config.build("reference") if "reference" in config else None
        return Asked(Parts.given(config), config.build("start"), other)

    @property
    def path(self) -> str | None:
        """Where the model is, of one that comes from files."""
        return getattr(self.parts.model, "path", None)


def exported(config: UserConfig) -> UserConfig:
    """The configuration with a run of ``immunax.train`` replaced by the model that it exported.

    Args:
      config: with the group ``model``.

    Raises:
      UserError: the run has not exported its model yet.
    """
    path = config.model.get("path")
    if path is None or not mirror.fetch(mirror.local(path) / manifest.FILE).is_file():
        return config
    folder = mirror.local(path) / MODEL
    if not mirror.is_whole(folder):
        raise UserError(
            f"run {path} has no folder {MODEL!r}: let it train to its end (with trainer.keep=export), or give another model."
        )
    return config.with_values({"model.path": mirror.named(folder)})


def subject(asked: Asked, setup: Setup, loaded: Params) -> Subject:
    """The model that is asked for, guarded where it is to be.

    Args:
      asked: the models.
      setup, loaded: from :func:`~immunax.stages.setup.set_up` of its parts.
    """
    params, path = start_model(asked.start, setup, loaded), asked.path
    told, weights = speech.digests(setup.checkpoint.tokenizer), digest.of_tree(params)
    if path is None or asked.start.defense is not None:
        name = called(asked.parts.model, asked.start)
        return Subject(name, params, {"weights": weights}, weights, None, None, told)
    folder = mirror.local(path)
    if not folder.is_dir():
        return Subject(str(path), params, setup.checkpoint.digests, weights, None, None, told)
    return Subject(names.of_model(path), params, digests(folder), weights, folder, made_by(folder), told)


def reference(asked: Asked, certified: Subject, setup: Setup) -> Subject | None:
    """What the model is compared with: the one that is named, or the start model of the run that made it.

    Args:
      asked: the models.
      certified: the model.
      setup: its, whose tokenizer the reference shares.

    Raises:
      UserError: it cannot be loaded, or has another tokenizer.
    """
    if asked.reference is not None:
        checkpoint = load(asked.reference, setup.devices)
        _check_tokenizer(setup, checkpoint.tokenizer)
        name, told = called(asked.reference, Start()), speech.digests(checkpoint.tokenizer)
        weights = digest.of_tree(checkpoint.params)
        return Subject(name, checkpoint.params, checkpoint.digests, weights, None, None, told)
    if certified.record is None:
        return None
    before = certified.record["config"]
    parts = Parts.admitted(before, _MANIFEST)
    near(parts.model, _MANIFEST)
    start, loaded = set_up(parts, setup.devices)
    _check_tokenizer(setup, start.checkpoint.tokenizer)
    params = start_model(admit(before.get("start"), Start, f"{_MANIFEST} (start)"), start, loaded)
    told, weights = speech.digests(start.checkpoint.tokenizer), digest.of_tree(params)
    return Subject("start model", params, {"weights": weights}, weights, None, None, told)


def undefended(asked: Asked, certified: Subject, setup: Setup, loaded: Params) -> Undefended | None:
    """The model before its guard, where it is known: what an attacker who has it too may merge with.

    Args:
      asked: the models.
      certified: the model.
      setup, loaded: from :func:`~immunax.stages.setup.set_up` of its parts.
    """
    if asked.start.defense is not None:
        model, params = asked.parts.model, loaded
    # Whoever certifies names the model before its guard; what the model's own run says of it is the model's word.
    elif asked.reference is not None:
        model, params = asked.reference, load(asked.reference, setup.devices).params
    elif certified.record is None:
        return None
    else:
        model = near(admit(certified.record["config"].get("model"), ModelRecipe, f"{_MANIFEST} (model)"), _MANIFEST)
        params = load(model, setup.devices).params
    return Undefended(params, digest.of_tree(params), not isinstance(model, ModelSource))


def called(model: ModelRecipe, start: Start) -> str:
    """What tables call a model that a run starts from."""
    path = getattr(model, "path", None)
    name = type(model).__name__ if path is None else names.of_model(path)
    return f"{name}{'' if start.defense is None else ', guarded'}"


def _check_tokenizer(setup: Setup, other: Any) -> None:
    if setup.checkpoint.tokenizer.get_vocab() != other.get_vocab():
        raise UserError(
            "reference: has another tokenizer than the model, so their answers cannot be compared; choose another."
        )
