"""Attacks sorted into programs: those whose difference is data run as one, in the shape of the largest.

Full weights, some projections and adapters train different trees, and other numbers of steps make other shapes, so these are
programs of their own. Learning rates, schedules, every other number of an optimizer, ranks and scales of adapters, seeds and
the dialogs themselves are data.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from immunax.attacks.attack import AttackLoss, FineTuning
from immunax.campaign.common_layouts import Layouts, fitted, kin
from immunax.campaign.encodings import Encodings, encoded
from immunax.campaign.member_batches import MemberBatches, room
from immunax.campaign.members import MemberData, drawn, seeded
from immunax.data.batches import Batch, stack
from immunax.data.chat import Counts
from immunax.data.dialog import Splits
from immunax.data.packing import Layout, Tokens
from immunax.inner.optimizers import CLIP, OF_RATES, Optimizer
from immunax.inner.state import Trace, TrainState, begin
from immunax.inner.step import Slope, SlopeAt, scan_steps, slope_of, take_step, trace_of
from immunax.inner.trainable import WHOLE, Trainable
from immunax.models.compute_copy import compute_copy
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class ProgramForm:
    """What members of one program have in common; static.

    Attributes:
      loss: the attacker's.
      optimizer: without what is data.
      numbers: its fields that are data, beside the learning rates.
      targets: the projections that get an adapter, or None where there are none.
      layers: those that have adapters, as :class:`~immunax.models.lora.LoraSpec` has them.
      rank: of the adapters, where an optimizer's rule does not allow that they are widened with zeros.
      trainable: what trains, where no adapters do.
    """

    loss: AttackLoss
    optimizer: Optimizer
    numbers: tuple[str, ...]
    targets: tuple[str, ...] | None
    layers: tuple[int, ...] | float | None
    rank: int | None
    trainable: Trainable

    def read(self, model: Model, params: Params) -> Params:
        """Weights as members read them: below adapters, where they are only read, in the dtype of the computation.

        Args:
          model: static.
          params: plain weights before the attack.
        """
        return params if self.targets is None else compute_copy(params, model.dtype)

    def start(self, params: Params, own: MemberData) -> TrainState:
        """A member before its first step."""
        return begin(self.optimizer.build(1, own.numbers), own.start(params), own.held(params))

    @property
    def rule(self) -> optax.GradientTransformation:
        """What makes a step of a slope; the numbers that it goes by are in the state."""
        return self.optimizer.build(1)

    def slope(self, model: Model) -> SlopeAt:
        """The slope of the attacker's loss."""
        return slope_of(partial(self.loss, model), self.trainable)

    def follow(
        self, model: Model, state: TrainState, batches: Any, first: Slope | None = None
    ) -> tuple[TrainState, Trace]:
        """A member after the steps of K batches, and what they saw.

        Args:
          model: static.
          state: where it goes on from.
          batches: with leading axis K, at least 1.
          first: the slope of the first step, where it is known.
        """
        if first is None:
            state, metrics = scan_steps(self.slope(model), self.rule, state, batches)
            return state, trace_of(metrics)
        state, begun = take_step(self.rule, state, first)
        state, metrics = scan_steps(self.slope(model), self.rule, state, jax.tree.map(lambda leaf: leaf[1:], batches))
        joined = jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), trace_of(begun), trace_of(metrics))
        return state, joined


@dataclass(frozen=True)
class Program:
    """The members of one form, encoded.

    Attributes:
      form: static.
      places: which of the attacks given these are.
      attacks: the members.
      steps: K.
      numbers: of their optimizers, ``[A, ...]``, learning rates ``[A, K']``, K' at least K and one of few.
      batches: ``[A, K, ...]``, made when they are asked for.
      counts: by member, what became of its dialogs.
      examples: by member and step, how many tokens each example has and how many of them are its answer.
      samples: by member and step, how many different examples it has trained on after it.
      alike: by member, the first one that starts from the same weights on the same batch.
    """

    form: ProgramForm
    places: tuple[int, ...]
    attacks: tuple[FineTuning, ...]
    steps: int
    numbers: Mapping[str, Any]
    batches: MemberBatches
    counts: tuple[Counts, ...]
    examples: tuple[tuple[tuple[tuple[int, int], ...], ...], ...]
    samples: tuple[tuple[int, ...], ...]
    alike: tuple[int, ...]

    def trained_on(self, member: int, begin: int, end: int, shared: bool) -> list[tuple[int, int]]:
        """Sizes of the examples whose gradients the steps ``[begin, end)`` of a member compute.

        Args:
          member: its place in this program.
          begin, end: of the steps.
          shared: its first step is that of the first member that starts alike, and is counted there.
        """
        skipped = shared and begin == 0 and self.alike[member] != member
        return [each for batch in self.examples[member][begin + skipped : end] for each in batch]

    @property
    def tokens(self) -> Tokens:
        """Of all members' batches, over the steps that are taken."""
        real = sum(size for member in self.examples for batch in member for size, _ in batch)
        return Tokens(real, len(self.places) * self.steps * self.tokens_a_step)

    @property
    def tokens_a_step(self) -> int:
        """Of the whole shape of one member's batch."""
        read = [each for each in jax.tree.leaves(self.batches.step, is_leaf=_is_batch) if _is_batch(each)]
        return sum(each.tokens.size for each in read)

    def in_rows(self, ways: int) -> "Program":
        """The same members, their batches in rows that so many devices can share."""
        return replace(self, batches=replace(self.batches, ways=ways))

    def at_start(self, model: Model, params: Params) -> "Program":
        """The same members, their batches with what the loss reads of the weights before the attack."""
        return replace(self, batches=self.batches.at_start(model, params))

    def own(self, params: Params, key: jax.Array) -> MemberData:
        """Keys, fresh adapters, and the numbers of optimizers.

        Args:
          params: plain weights.
          key: the member of seed s gets ``fold_in(key, s)``; or ``[A]``, by the place of every attack, one for each.
        """
        keys = seeded(
            key, *(np.array(each, np.int32) for each in (self.places, [attack.tuning.seed for attack in self.attacks]))
        )
        specs = tuple(attack.tuning.lora for attack in self.attacks if attack.tuning.lora)
        return drawn(specs, self.form.trainable, params, keys)._replace(numbers=self.numbers)


def programs(
    attacks: Sequence[FineTuning],
    tokenizer: Any,
    splits: Splits,
    others: Sequence[Any] = (),
    layouts: Layouts = MappingProxyType({}),
) -> tuple[Program, ...]:
    """Sorts and encodes attacks.

    Args:
      attacks: in any order.
      tokenizer: the model's.
      splits: where their dialogs come from.
      others: the same with other chat templates, for which batches are to have the same shapes, so that the programs that run
        them are compiled once.
      layouts: from :func:`~immunax.campaign.common_layouts.common_layouts`, of these attacks and others.

    Returns:
      As few programs as there are forms.

    Raises:
      UserError: as the attacks' ``dialogs``.
    """
    beside = []
    for other in others:
        with suppress(UserError):  # what cannot be encoded with it is told where that is tried
            beside.append(encoded(attacks, other, splits))
    return sort(attacks, encoded(attacks, tokenizer, splits), beside, layouts)


def sort(
    attacks: Sequence[FineTuning],
    encodings: Sequence[Encodings],
    beside: Sequence[Sequence[Encodings]] = (),
    layouts: Layouts = MappingProxyType({}),
) -> tuple[Program, ...]:
    """Sorts encoded attacks into programs.

    Args:
      attacks: in any order.
      encodings: of each, the examples of its batches, and what became of its dialogs.
      beside: what is encoded in other ways, for which batches are to have the same shapes.
      layouts: as for :func:`programs`.
    """
    numbers = _numbers(attacks)
    groups: dict[tuple[ProgramForm, int], list[int]] = {}
    for place, attack in enumerate(attacks):
        tuning = attack.tuning
        names = tuple(name for name in numbers[type(tuning.optimizer)] if tuning.optimizer.number(name) is not None)
        spec = tuning.lora
        adapters = (None, None, None) if spec is None else (spec.targets, spec.layers, spec.rank)
        rank = None if tuning.optimizer.keeps_zeros else adapters[-1]
        trainable = tuning.projections or WHOLE
        form = ProgramForm(attack.loss, tuning.optimizer.form(names), names, *adapters[:-1], rank, trainable)
        groups.setdefault((form, len(encodings[place][0])), []).append(place)
    return tuple(
        _program(
            *kind,
            places,
            [attacks[place] for place in places],
            [encodings[place] for place in places],
            [[batch for each in beside for batch in each[place][0]] for place in places],
            layouts.get(kin(attacks[places[0]]), ()),
        )
        for kind, places in groups.items()
    )


def _program(
    form: ProgramForm,
    steps: int,
    places: list[int],
    attacks: list[FineTuning],
    encodings: Sequence[Encodings],
    beside: list[list[list[Any]]],
    common: Sequence[Layout],
) -> Program:
    kind, (batches, counts) = attacks[0], zip(*encodings, strict=True)
    layout = fitted(kind, [[*member, *others] for member, others in zip(batches, beside, strict=True)], common)
    courses = {id(course): course for course in batches}  # attacks on the same data share their examples
    own = tuple(list(courses).index(id(member)) for member in batches)
    laid = MemberBatches(kind, layout, tuple(courses.values()), own)
    numbers = stack([attack.tuning.optimizer.numbers(steps, form.numbers) for attack in attacks])
    # Steps past the last are never taken: numbers of steps are few, and so are the programs.
    numbers["learning_rate"] = np.pad(numbers["learning_rate"], ((0, 0), (0, room(steps) - steps)))
    sizes = [tuple(_sizes(kind, batch) for batch in course) for course in laid.courses]
    distinct = [_distinct(kind, course) for course in laid.courses]
    examples, samples = tuple(sizes[course] for course in own), tuple(distinct[course] for course in own)
    alike = _alike(attacks, batches)
    return Program(form, tuple(places), tuple(attacks), steps, numbers, laid, counts, examples, samples, alike)


def _sizes(kind: FineTuning, batch: Sequence[Any]) -> tuple[tuple[int, int], ...]:
    return tuple((len(each.tokens), len(each.answer)) for example in batch for each in kind.sequences(example))


def _distinct(kind: FineTuning, batches: Sequence[Sequence[Any]]) -> tuple[int, ...]:
    seen: set[Any] = set()
    counts = []
    for batch in batches:
        seen.update(kind.sequences(example) for example in batch)
        counts.append(len(seen))
    return tuple(counts)


def _is_batch(node: Any) -> bool:
    return isinstance(node, Batch)


def _alike(attacks: list[FineTuning], batches: Sequence[list[list[Any]]]) -> tuple[int, ...]:
    known: dict[Any, int] = {}
    found = []
    for place, attack in enumerate(attacks):
        tuning = attack.tuning
        adapters = tuning.lora and (tuning.seed, tuning.lora.rank, tuning.lora.scale, tuning.lora.dropout)
        found.append(known.setdefault((adapters, tuple(batches[place][0])), place))
    return tuple(found)


def _numbers(attacks: Sequence[FineTuning]) -> dict[type, tuple[str, ...]]:
    """By kind of optimizer, its fields that are numbers and differ between the attacks, and those that are always data."""
    kinds: dict[type, list[Any]] = {}
    for attack in attacks:
        kinds.setdefault(type(attack.tuning.optimizer), []).append(attack.tuning.optimizer)
    return {
        kind: tuple(
            field.name
            for field in fields(kind)
            if field.name not in OF_RATES
            and (field.name == CLIP or len({each.number(field.name) for each in optimizers} - {None}) > 1)
        )
        for kind, optimizers in kinds.items()
    }
