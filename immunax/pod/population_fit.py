"""Do populations of attacks fit a slice of TPUs, and what bounds them? Compiled as :mod:`immunax.pod.fit` compiles a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.campaign.programs import Program
from immunax.campaign.search import Search
from immunax.data.batches import in_rows, pack
from immunax.data.packing import fit_packed
from immunax.inner.memory import SHARE, most_that_fit
from immunax.inner.population import plan
from immunax.models.model import Model
from immunax.pod.abstract_population import (
    AbstractPopulation,
    abstract_population,
    planned,
    rung_inputs,
    stretch_inputs,
    trace_rung,
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
      steps: of each turn's runs of the program, how many: a stretch counts step by step, a rung is one.
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


def _stretches(part: Program, model: Model, devices: Mesh, chip: Chip, copies: int) -> PopulationFit:
    members, ways = copies * len(part.places), devices.shape["attack"]

    @cache
    def tried(chunk: int) -> tuple[AbstractPopulation, Fit]:
        population = abstract_population(part, model, devices, chunk * ways)
        inputs = stretch_inputs(population, model, devices)

        def traced(model: Model) -> Any:
            return trace_stretch(population, model, devices, inputs)

        return population, compile_traced(traced, model, inputs, devices, chip, turns=1)

    _, turns, chunk = plan(members, ways, _most(tried, plan(members, ways).chunk, chip))
    return PopulationFit(members, chunk * ways, turns, part.steps, tried(chunk)[1])


def _most(tried: Callable[[int], tuple[AbstractPopulation, Fit]], most: int, chip: Chip) -> int:
    """Members of a turn on each part of the devices, by the rule of a run."""

    def needed(chunk: int) -> int | None:
        population, fit = tried(chunk)
        if not fit.fits or fit.memory.temporaries is None:
            return None
        return fit.memory.arguments + fit.memory.temporaries - device_bytes(population.params)

    weights = device_bytes((tried(most)[0].params, tried(most)[0].loaded))
    try:
        return most_that_fit(needed, most, int(SHARE * (chip.hbm_bytes - weights)))
    except UserError:
        return 1


def compile_search(search: Search, model: Model, devices: Mesh, chip: Chip) -> list[PopulationFit]:
    """The first rung of each program of a search; later ones have fewer members, and are reckoned by it.

    Args:
      search: with its populations.
      model, devices, chip: as for :func:`compile_attacks`.

    Raises:
      UserError: as there.
    """
    members, ways = search.members(), data_ways(devices)
    longest = max(members, key=lambda each: each.max_length)
    examples = [longest.longest()] * search.examples
    retain = in_rows(jax.tree.map(lambda leaf: leaf[None], pack(examples, fit_packed([examples]))), ways, 1)
    return [
        _first_rung(part, search, [retain] * len(members), retain, model, devices, chip)
        for part in planned(members, ways)
    ]


def _first_rung(
    part: Program, search: Search, asked: Sequence[Any], retain: Any, model: Model, devices: Mesh, chip: Chip
) -> PopulationFit:
    members, ways = len(part.places), devices.shape["attack"]
    first, *later = search.halving.rungs(members, part.steps)
    population = abstract_population(part, model, devices, members, asked)
    inputs = rung_inputs(population, first, retain, devices)

    @cache
    def tried(chunk: int) -> tuple[AbstractPopulation, Fit]:
        def traced(model: Model) -> Any:
            return trace_rung(population, model, devices, inputs, chunk)

        return population, compile_traced(traced, model, inputs, devices, chip)

    chunk = _most(tried, plan(members, ways).chunk, chip)
    # A step of a rung takes as long for one member as for as many as its devices hold at once.
    work = [-(-rung.members // ways) * (rung.end - rung.begin) for rung in (first, *later)]
    return PopulationFit(members, chunk * ways, 1, sum(work) / work[0], tried(chunk)[1])
