"""Which cells of a certificate are run again, and what is left unknown by that."""

import secrets
from collections.abc import Sequence

from immunax.certificate.comparison import escaping
from immunax.runtime.together import agreed
from immunax.stages.cells import Cell


def drawn(able: Sequence[Cell], first: Sequence[str], count: int) -> list[Cell]:
    """Deciding cells, then others by chance; the same in every process.

    Args:
      able: that can be replayed.
      first: names of those that the verdicts rest on.
      count: how many; all where there are fewer.
    """
    named = {cell.name: cell for cell in able}
    ahead = [named[name] for name in first if name in named][:count]
    others = [cell.name for cell in able if cell.name not in set(first)]
    by_chance = agreed(lambda: secrets.SystemRandom().sample(others, min(count - len(ahead), len(others))))
    return [*ahead, *(named[name] for name in by_chance)]


def chance(able: Sequence[Cell], first: Sequence[str], chosen: Sequence[Cell]) -> str:
    """What was not run, and how likely a forgery of it would have passed.

    Args:
      able, first: as for :func:`drawn`.
      chosen: from there.
    """
    ahead = {cell.name for cell in able} & set(first)
    decided = sum(cell.name in ahead for cell in chosen)
    others, some = len(able) - len(ahead), len(chosen) - decided
    line = f"{decided} of {len(ahead)} cells that the verdicts rest on, and {some} of {others} others"
    if decided < len(ahead):
        return f"{line}; raise --replay to {len(ahead)} at least, and what is not run is not checked"
    shares = [
        f"{escaping(others, some, forged):.0%} of those with {forged}" for forged in (1, 3, 10) if forged <= others
    ]
    escape = f"; of certificates with one or more of these others forged would have passed: {', '.join(shares)}"
    return line + (escape if some < others else "")
