"""The model that is certified, and the one that it is compared with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from omegaconf import DictConfig, OmegaConf

from immunax.models.hub import digests
from immunax.models.model import Params
from immunax.runtime import digest, manifest, names
from immunax.runtime.errors import UserError
from immunax.stages.export import MODEL
from immunax.stages.guard import start_model
from immunax.stages.provenance import made_by
from immunax.stages.setup import Setup, build, load, set_up


class Subject(NamedTuple):
    """A model.

    Attributes:
      name: as the certificate calls it.
      params: plain float32 weights, on the mesh of the setup.
      digests: SHA-256 by file, or of the weights where they come from no file.
      folder: of the files, or None.
      record: the manifest of the run that made it, or None.
    """

    name: str
    params: Params
    digests: Mapping[str, str]
    folder: Path | None
    record: Mapping[str, Any] | None

    def parameters(self) -> int:
        """How many weights it has."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))


def exported(config: DictConfig) -> DictConfig:
    """The configuration with a run of ``immunax.train`` replaced by the model that it exported.

    Args:
      config: with the group ``model``.

    Raises:
      UserError: the run has not exported its model yet.
    """
    path = config.model.get("path")
    if path is None or not (Path(path).expanduser() / manifest.FILE).is_file():
        return config
    folder = Path(path).expanduser() / MODEL
    if not folder.is_dir():
        raise UserError(f"run {path} has no folder {MODEL!r} yet: let it train to its end, or give another model.")
    changed = OmegaConf.create(config)
    changed.model.path = str(folder)
    return changed


def subject(config: DictConfig, setup: Setup, loaded: Params) -> Subject:
    """The model that a configuration names, guarded where it says so.

    Args:
      config: from :func:`exported`.
      setup, loaded: from :func:`~immunax.stages.setup.set_up` of it.
    """
    params = start_model(config.start, setup, loaded)
    path = config.model.get("path")
    if path is None or config.start.defense is not None:
        return Subject(called(config), params, {"weights": digest.of_tree(params)}, None, None)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return Subject(str(path), params, setup.checkpoint.digests, None, None)
    return Subject(names.of_model(path), params, digests(folder), folder, made_by(folder))


def reference(config: DictConfig, certified: Subject, setup: Setup) -> Subject | None:
    """What the model is compared with: the one that is named, or the start model of the run that made it.

    Args:
      config: with the group ``reference``, null for the run's own.
      certified: the model.
      setup: its, whose tokenizer the reference shares.

    Raises:
      UserError: it cannot be loaded, or has another tokenizer.
    """
    if "reference" in config:
        checkpoint = load(build(config.reference), setup.devices)
        _check_tokenizer(setup, checkpoint.tokenizer)
        return Subject(names.of_model(config.reference.path), checkpoint.params, checkpoint.digests, None, None)
    if certified.record is None:
        return None
    before = OmegaConf.create(dict(certified.record["config"]))
    start, loaded = set_up(before, setup.devices)
    _check_tokenizer(setup, start.checkpoint.tokenizer)
    params = start_model(before.start, start, loaded)
    return Subject("start model", params, {"weights": digest.of_tree(params)}, None, None)


def undefended(config: DictConfig, certified: Subject, setup: Setup, loaded: Params) -> Params | None:
    """The model before its guard, where it is known: what an attacker who has it too may merge with.

    Args:
      config: from :func:`exported`.
      certified: the model.
      setup, loaded: from :func:`~immunax.stages.setup.set_up` of the configuration.
    """
    if config.start.defense is not None:
        return loaded
    if certified.record is None:
        return None
    return load(build(OmegaConf.create(dict(certified.record["config"])).model), setup.devices).params


def called(config: DictConfig) -> str:
    """What tables call the start model of a configuration."""
    path = config.model.get("path")
    name = str(config.model._target_).rpartition(".")[2] if path is None else names.of_model(path)
    return f"{name}{'' if config.start.defense is None else ', guarded'}"


def _check_tokenizer(setup: Setup, other: Any) -> None:
    if setup.checkpoint.tokenizer.get_vocab() != other.get_vocab():
        raise UserError(
            "reference: has another tokenizer than the model, so their answers cannot be compared; choose another."
        )
