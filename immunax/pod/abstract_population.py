"""A population's programs from shapes alone: what searches and certificates run, without weights, data or a tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from immunax.attacks.attack import FineTuning
from immunax.campaign.encodings import Encodings
from immunax.campaign.programs import Program, sort
from immunax.campaign.stretch import Start, Stretch, advance
from immunax.data.chat import Counts
from immunax.data.dialog import Split, Splits, ask
from immunax.inner.population import map_members
from immunax.models.model import Model
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import sharded

_DIALOGS = 4096
"""Of every stream, that an attack may choose from where there are no data."""


class AbstractPopulation(NamedTuple):
    """The members of one program as shapes, on a mesh.

    Attributes:
      part: the attacks.
      members: A.
      params: plain weights, as members read them.
      loaded: the float32 weights, which stay beside copies of them; None where ``params`` are these.
      own: what is each one's own beside its batches, ``[A, ...]``.
    """

    part: Program
    members: int
    params: Any
    loaded: Any
    own: Any


def planned(attacks: Sequence[FineTuning], ways: int) -> tuple[Program, ...]:
    """Attacks as programs, every example at its longest: those that real data can be no more than.

    Args:
      attacks: in any order.
      ways: devices that share the rows of a batch.

    Raises:
      UserError: how many dialogs one takes is not said by its fields.
    """
    return tuple(part.in_rows(ways) for part in sort(attacks, [_encoded(attack) for attack in attacks]))


def _encoded(attack: FineTuning) -> Encodings:
    if attack.samples is None:
        raise UserError("attack.samples is null, all that the data have, and shapes know no data: give their number.")
    stream = tuple(ask(f"question {number}", "answer") for number in range(_DIALOGS))
    splits, example = Splits(Split(), Split(stream, stream, stream)), attack.longest()
    batches = [
        batch
        for dialogs, epochs in attack.phases(splits)
        for batch in replace(attack.tuning, epochs=epochs).batches([example] * len(dialogs))
    ]
    return batches, Counts(0, 0, 0)


def abstract_population(part: Program, model: Model, devices: Mesh, members: int) -> AbstractPopulation:
    """Members of a program as shapes.

    Args:
      part: from :func:`planned`.
      model: static.
      devices: the mesh; its devices need not exist.
      members: A, whatever their number in ``part``: the last ones are copies in shape.
    """
    params = jax.eval_shape(model.init, jax.random.key(0))
    own = jax.eval_shape(part.own, params, jax.random.key(0))
    many = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape[1:]), leaf.dtype), own)
    read = jax.eval_shape(partial(part.form.read, model), params)
    loaded = None if read == params else sharded(params, devices)
    return AbstractPopulation(part, members, sharded(read, devices), loaded, sharded(many, devices, stacked=True))


def stretch_inputs(population: AbstractPopulation, model: Model, devices: Mesh) -> tuple[Any, Any, Any]:
    """What a stretch of steps takes: states, members, and what all read, its number of steps among it.

    Args:
      population: shapes; its members are a multiple of the mesh's ``attack``.
      model: static.
      devices: the mesh.
    """
    part, members, params, own = population.part, population.members, population.params, population.own
    start = partial(map_members, Start(part.form, model))
    state = sharded(jax.eval_shape(start, own, (params, None)), devices, stacked=True)
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(devices, PartitionSpec()))
    batches = part.batches.shapes(members, part.batches.piece(-(-members // devices.shape["attack"])))
    return state, (sharded(batches, devices, stacked=True), own), (params, number, number)


def trace_stretch(population: AbstractPopulation, model: Model, devices: Mesh, inputs: tuple[Any, Any, Any]) -> Any:
    """The very stretch of steps that members of a certificate run together; its loop is of as many steps as it is told.

    Args:
      population, model, devices: as for :func:`stretch_inputs`.
      inputs: from there.
    """
    return advance.trace(Stretch(population.part.form, model), devices, *inputs)
