"""One defended organism: the guarded one, trained by a defense with given settings."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from immunax.models.model import Params
from immunax.runtime.launch import composed
from immunax.runtime.user_config import UserConfig
from immunax.stages.guard import start_model
from immunax.stages.outer_loop import minimise
from immunax.stages.setup import Parts, Setup, set_up

UNDEFENDED = "undefended"


def configuration(defense: str, overrides: Sequence[str] = ()) -> UserConfig:
    """What ``python -m immunax.train model=organism +defense=NAME OVERRIDES`` runs."""
    return composed("train", ["model=organism", f"+defense={defense}", *overrides])


@lru_cache(maxsize=1)
def organism() -> tuple[Setup, Params]:
    """The model and the data, and the guarded weights that every defense starts from."""
    config = configuration("safety_tuning")
    setup, loaded = set_up(Parts.given(config))
    return setup, start_model(config.build("start"), setup, loaded)


def trials(rounds: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """The overrides of every trial of one defense, from its entry in ``defenses.yaml``."""
    for each in rounds:
        grid = each["grid"]
        for values in itertools.product(*grid.values()):
            yield [*each["always"], *(f"{path}={value}" for path, value in zip(grid, values, strict=True))]


def defended(defense: str, overrides: Sequence[str], seed: int) -> Params:
    """The weights after training.

    Args:
      defense: its name, or ``UNDEFENDED``.
      overrides: of the configuration.
      seed: of the training's data and keys.

    Raises:
      UserError: the loss is not finite.
    """
    setup, start = organism()
    if defense == UNDEFENDED:
        return start
    config = configuration(defense, [*overrides, f"trainer.seed={seed}"])
    tokenizer, data = setup.checkpoint.tokenizer, setup.splits.train
    parts = config.build("defense"), config.build("trainer")
    return minimise("train", f"train {defense}", setup.model, start, tokenizer, data, *parts, setup.devices)
