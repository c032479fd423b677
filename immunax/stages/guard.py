"""The start model: as loaded, or with a guard implanted, made once and cached."""

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from immunax.models.model import Params
from immunax.runtime import cache, digest
from immunax.runtime.errors import UserError
from immunax.runtime.manifest import versions
from immunax.stages.outer_loop import minimise
from immunax.stages.setup import Setup, build, check_context


def start_model(start: DictConfig, setup: Setup, loaded: Params) -> Params:
    """The weights that a run defends, on the mesh of the setup.

    Args:
      start: the group ``start``: ``defense`` and ``trainer`` that implant a guard, both null to take the model as it is, and the
        guard's ``fingerprint``, null where there is none.
      setup: model and data.
      loaded: the model's weights.

    Returns:
      Plain float32 weights. A guard is taken from the cache when its model, data, configuration and versions are the same.

    Raises:
      UserError: only one of the two is null, or the guard's loss is not finite.
    """
    if start.defense is None and start.trainer is None:
        return loaded
    if start.defense is None or start.trainer is None:
        raise UserError("start.defense and start.trainer belong together: give both, or neither with start=base.")
    chosen = {name: OmegaConf.to_container(start[name], resolve=True) for name in ("defense", "trainer")}
    key = {
        "digests": {**setup.digests, "data": digest.of_json(asdict(setup.splits.train))},
        "start": chosen,
        "model": repr(setup.model),
        "versions": versions(),
    }

    def make() -> Params:
        return _implant(start, setup, loaded)

    def read(folder: Path) -> Params:
        return cache.read_arrays(folder, setup.devices)

    params = cache.get_or_make("guard", key, make, read, cache.write_arrays, [_implant, chosen])
    if start.get("fingerprint") is not None:
        build(start.fingerprint).check(setup, params)
    return params


def _implant(start: DictConfig, setup: Setup, loaded: Params) -> Params:
    defense, training = build(start.defense), build(start.trainer)
    check_context(setup.model, {"start.trainer.max_length": training.max_length})
    tokenizer, data = setup.checkpoint.tokenizer, setup.splits.train
    return minimise("implant the guard", setup.model, loaded, tokenizer, data, defense, training, setup.devices)
