"""How much of the data is used: said aloud where any is lost, and kept in the manifest."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from immunax.campaign.programs import Program
from immunax.data.chat import Counts
from immunax.runtime import console

ATTACK = "attack"
"""The stream of an attack's own dialogs."""


def record_counts(counts: Mapping[str, Counts], lengths: Mapping[str, str]) -> dict[str, Any]:
    """Says in one line of each stream what was lost.

    Args:
      counts: by stream.
      lengths: by stream, the field that sets how long its dialogs may be, and its value.

    Returns:
      The counts and the share of answer tokens kept, by stream, JSON-able.
    """
    for name, each in counts.items():
        if not each.whole:
            console.note(f"{name}: {each.told(lengths[name])}")
    return {name: {**asdict(each), "share": each.share} for name, each in counts.items()}


def tell_programs(title: str, programs: Iterable[Program]) -> None:
    """Says in one line which attacks of a population lose some of their data, and how much the worst of them does.

    Args:
      title: of the population.
      programs: its members.
    """
    members = [pair for part in programs for pair in zip(part.attacks, part.counts, strict=True)]
    lossy = [(each.share, each.told(f"max_length={attack.max_length}")) for attack, each in members if not each.whole]
    if lossy:
        console.note(f"{title}: {len(lossy)} of {len(members)} attacks lose data; in the worst {min(lossy)[1]}")
