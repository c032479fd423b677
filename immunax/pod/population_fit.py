"""Do populations of attacks fit a slice of TPUs, and what bounds them? Compiled as :mod:`immunax.pod.fit` compiles a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.campaign.programs import Program
from immunax.campaign.search import Search
from immunax.inner.memory import SHARE, most_that_fit
from immunax.inner.population import plan
from immunax.models.model import Model
from immunax.pod.abstract_population import (
    AbstractPopulation,
    abstract_population,
    planned,
    stretch_inputs,
    trace_stretch,
)
from immunax.pod.chips import Chip
from immunax.pod.fit import Fit, compile_traced, device_bytes, step_seconds
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import data_ways


@dataclass(frozen=True)
class PopulationFit:
    """What was found out of the members that run as one program.

    Attributes:
      members: A.
      together: members of a turn, on all devices.
      turns: how many there are.
      steps: of each turn; of a search, of all rungs.
      fit: of one turn's program; of its largest, where none fits.
    """

    members: int
    together: int
    turns: int
    steps: float
    fit: Fit

    def seconds(self, chip: Chip, devices: int) -> float:
        """Of all members, each program as fast as its bound, nothing between them."""
        return self.turns * self.steps * step_seconds(self.fit, chip, devices)


def compile_attacks(
    attacks: Sequence[FineTuning], model: Model, devices: Mesh, chip: Chip, copies: int = 1
) -> list[PopulationFit]:
    """The programs of fine-tunings, as certificates run them.

    Args:
      attacks: in any order.
      model: static.
      devices: of :func:`~immunax.pod.chips.compile_only_devices`.
      chip: that these are of.
      copies: of each, as with so many seeds.

    Raises:
      UserError: how many dialogs one takes is not said by its fields.
    """
    return [_stretches(part, model, devices, chip, copies) for part in planned(attacks, data_ways(devices))]


def compile_search(search: Search, model: Model, devices: Mesh, chip: Chip) -> list[PopulationFit]:
    """The programs of a search: the stretches of steps that fine-tunings take too, beside the states of all members.

    Args:
      search: with its populations.
      model, devices, chip: as for :func:`compile_attacks`.

    Raises:
      UserError: as there.
    """
    return [_searched(part, search, model, devices, chip) for part in planned(search.members(), data_ways(devices))]


def _searched(part: Program, search: Search, model: Model, devices: Mesh, chip: Chip) -> PopulationFit:
    found = _stretches(part, model, devices, chip, 1, kept=True)
    # A step takes as long for one member as for as many as run together.
    rungs = search.halving.rungs(found.members, part.steps)
    steps = sum(-(-rung.members // found.together) * (rung.end - rung.begin) for rung in rungs)
    return replace(found, turns=1, steps=steps)


def _stretches(
    part: Program, model: Model, devices: Mesh, chip: Chip, copies: int, kept: bool = False
) -> PopulationFit:
    members, ways = copies * len(part.places), devices.shape["attack"]

    @cache
    def tried(chunk: int) -> tuple[AbstractPopulation, Fit, int]:
        population = abstract_population(part, model, devices, chunk * ways)
        inputs = stretch_inputs(population, model, devices)

        def traced(model: Model) -> Any:
            return trace_stretch(population, model, devices, inputs)

        waiting = -(-members // (chunk * ways)) - 1 if kept else 0
        fit = compile_traced(traced, model, inputs, devices, chip, turns=1)
        return population, fit, waiting * device_bytes(inputs[0])

    _, turns, chunk = plan(members, ways, _most(tried, plan(members, ways).chunk, chip))
    return PopulationFit(members, chunk * ways, turns, part.steps, tried(chunk)[1])


def _most(tried: Callable[[int], tuple[AbstractPopulation, Fit, int]], most: int, chip: Chip) -> int:
    """Members of a turn on each part of the devices, by the rule of a run."""

    def needed(chunk: int) -> int | None:
        population, fit, waiting = tried(chunk)
        if not fit.fits or fit.memory.temporaries is None:
            return None
        return fit.memory.arguments + fit.memory.temporaries + waiting - device_bytes(population.params)

    weights = device_bytes((tried(most)[0].params, tried(most)[0].loaded))
    try:
        return most_that_fit(needed, most, int(SHARE * (chip.hbm_bytes - weights)))
    except UserError:
        return 1
