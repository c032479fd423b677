"""Layouts that several attacks share, so that the program of their steps is compiled once.

Whatever a suite's families train on, dialogs of one corpus come to nearly the same rectangles. Where one rectangle holds the
batches of several at little more than each costs by itself, it is taken for all of them.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from immunax.attacks.attack import AttackLoss, FineTuning
from immunax.campaign.encodings import trained_on
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
    """

    batches: list[Sequence[Any]]
    layout: Layout
    least: float


def common_layouts(attacks: Iterable[FineTuning], tokenizers: Sequence[Any], splits: Splits) -> Layouts:
    """Few layouts, of which each of some attacks can have one.

    Args:
      attacks: in any order.
      tokenizers: the model's, under each of its templates.
      splits: where their dialogs come from.
    """
    different: dict[tuple[Kin, Hashable], FineTuning] = {}
    for attack in attacks:
        with suppress(UserError):  # what the data lack is told where that is tried
            different.setdefault((kin(attack), trained_on(attack, splits)), attack)
    every: dict[Hashable, list[Sequence[Any]]] = {}
    groups: dict[Kin, list[_Group]] = {}
    for (family, same), attack in different.items():
        if same not in every:
            every[same] = _batches(attack, tokenizers, splits)
        if every[same]:
            _join(attack, every[same], groups.setdefault(family, []))
    return {each: [group.layout for group in found] for each, found in groups.items()}


def _batches(attack: FineTuning, tokenizers: Sequence[Any], splits: Splits) -> list[Sequence[Any]]:
    found: list[Sequence[Any]] = []
    for tokenizer in tokenizers:
        with suppress(UserError):  # as above
            found += attack.examples(tokenizer, splits)[0]
    return found


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
            groups[place] = _Group(every, layout, least)
            return
    groups.append(_Group(batches, own, price(own)))


def fitted(attack: FineTuning, members: Sequence[Batches], layouts: Sequence[Layout] = ()) -> Layout:
    """A layout for the members of a program.

    Each chooses by its own batches, so that an attack that is run again by itself is laid out as it was among others.

    Args:
      attack: lays them out.
      members: by member, its batches.
      layouts: of its kin; where not all choose the same, the members have one of their own.
    """
    if layouts:
        different = {tuple(map(id, batches)): batches for batches in members}.values()
        chosen = {common(attack.fit(each), layouts, partial(_holds, attack, each)) for each in different}
        if len(chosen) == 1 and (layout := chosen.pop()) is not None:
            return layout
    own = attack.fit([batch for batches in members for batch in batches])
    return replace(own, answers=few(own.answers))


def _holds(attack: FineTuning, batches: Batches, layout: Layout) -> bool:
    try:
        for batch in batches:
            attack.lay(batch, layout)
    except ValueError:
        return False
    return True
