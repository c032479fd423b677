"""The start model: as loaded, or with a guard implanted, made once and cached."""

from dataclasses import asdict, dataclass
from pathlib import Path

from immunax.models.model import Params
from immunax.outer.defense import Defense
from immunax.outer.training import Training
from immunax.runtime import cache, digest, goodput
from immunax.runtime.errors import UserError
from immunax.runtime.manifest import versions
from immunax.stages.fingerprint import Fingerprint
from immunax.stages.identity import identity
from immunax.stages.outer_loop import minimise
from immunax.stages.setup import Setup, check_context


@dataclass(frozen=True)
class Start:
    """How a model that was loaded becomes the one that a run starts from.

    Attributes:
      defense, trainer: implant a guard; both None to take the model as it is.
      fingerprint: what the guarded model is known by, or None.
    """

    defense: Defense | None = None
    trainer: Training | None = None
    fingerprint: Fingerprint | None = None

    def __post_init__(self):
        if (self.defense is None) != (self.trainer is None):
            raise UserError("start.defense and start.trainer belong together: give both, or neither with start=base.")


def start_model(start: Start, setup: Setup, loaded: Params) -> Params:
    """The weights that a run defends, on the mesh of the setup.

    Args:
      start: the guard.
      setup: model and data.
      loaded: the model's weights.

    Returns:
      Plain float32 weights. A guard is taken from the cache when its model, data, configuration and versions are the same.

    Raises:
      UserError: the guard's loss is not finite.
    """
    defense, training = start.defense, start.trainer
    if defense is None or training is None:
        return loaded
    key = {
        "digests": {**setup.digests, "data": digest.of_json(asdict(setup.splits.train))},
        "start": identity([defense, training]),
        "model": repr(setup.model),
        "versions": versions(),
    }

    def make() -> Params:
        return _implant(defense, training, setup, loaded)

    def read(folder: Path) -> Params:
        return cache.read_arrays(folder, setup.devices)

    with goodput.spending("load"):
        params = cache.get_or_make("guard", key, make, read, cache.write_arrays, [_implant, defense, training])
    if start.fingerprint is not None:
        start.fingerprint.check(setup, params)
    return params


def _implant(defense: Defense, training: Training, setup: Setup, loaded: Params) -> Params:
    check_context(setup.model, {"start.trainer.max_length": training.max_length})
    tokenizer, data, devices = setup.checkpoint.tokenizer, setup.splits.train, setup.devices
    return minimise("guard", "implant the guard", setup.model, loaded, tokenizer, data, defense, training, devices)
