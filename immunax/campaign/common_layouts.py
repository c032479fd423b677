"""Layouts that several attacks share, so that the program of their steps is compiled once.

Whatever a suite's families train on, dialogs of one corpus come to nearly the same rectangles. Where one rectangle holds the
batches of several at little more than each costs by itself, it is taken for all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from immunax.attacks.attack import AttackLoss, FineTuning
from immunax.data.dialog import Splits
from immunax.data.packing import MORE, Layout, common, few, price
from immunax.inner.trainable import WHOLE, Trainable
from immunax.runtime.errors import UserError

Batches = Sequence[Sequence[Any]]
"""The examples of each of some batches."""


class Kin(NamedTuple):
    """What attacks have in common that may share a program: their loss, and what they train."""

    loss: AttackLoss
    trainable: Trainable
    targets: tuple[str, ...] | None
    layers: Any


Layouts = Mapping[Kin, Sequence[Layout]]


def kin(attack: FineTuning) -> Kin:
    """Of an attack."""
    spec = attack.tuning.lora
    adapted = (None, None) if spec is None else (spec.targets, spec.layers)
    return Kin(attack.loss, attack.tuning.projections or WHOLE, *adapted)


class _Group(NamedTuple):
    """Batches that share a layout.

    Attributes:
      batches: of all attacks in it.
      layout: that holds them.
      least: what the cheapest of them costs by itself.
      count: how many attacks.
    """

    batches: list[Sequence[Any]]
    layout: Layout
    least: float
    count: int


def common_layouts(families: Iterable[Sequence[FineTuning]], tokenizers: Sequence[Any], splits: Splits) -> Layouts:
    """The layouts that more than one of some attacks can have.

    Args:
      families: attacks, in any order.
      tokenizers: the model's, under each of its templates.
      splits: where their dialogs come from.
    """
    groups: dict[Kin, list[_Group]] = {}
    for attack in (attack for family in families for attack in family):
        batches: list[Sequence[Any]] = []
        for tokenizer in tokenizers:
            with suppress(UserError):  # what cannot be encoded is told where that is tried
                batches += attack.examples(tokenizer, splits)[0]
        if batches:
            _join(attack, batches, groups.setdefault(kin(attack), []))
    return {each: [group.layout for group in found if group.count > 1] for each, found in groups.items()}


def _join(attack: FineTuning, batches: list[Sequence[Any]], groups: list[_Group]) -> None:
    """Puts the batches of an attack into the first group whose layout can hold them too, or into one of their own."""
    own = attack.fit(batches)
    for place, group in enumerate(groups):
        least = min(group.least, price(own))
        if max(price(group.layout), price(own)) > (1 + MORE) * least:
            continue
        every = [*group.batches, *batches]
        layout = attack.fit(every)
        if price(layout) <= (1 + MORE) * least:
            groups[place] = _Group(every, layout, least, group.count + 1)
            return
    groups.append(_Group(batches, own, price(own), 1))


def fitted(attack: FineTuning, batches: Batches, layouts: Sequence[Layout] = ()) -> Layout:
    """A layout for the batches of an attack: one that others have too, or their own.

    Args:
      attack: lays them out.
      batches: examples.
      layouts: of its kin.
    """
    own = attack.fit(batches)
    return common(own, layouts, partial(_holds, attack, batches)) or replace(own, answers=few(own.answers))


def _holds(attack: FineTuning, batches: Batches, layout: Layout) -> bool:
    try:
        for batch in batches:
            attack.lay(batch, layout)
    except ValueError:
        return False
    return True
