"""What chips cost, from a table with its date and source: ``prices.json``."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from immunax.runtime.errors import UserError
from tpu.slices import Shape

FILE = Path(__file__).with_name("prices.json")
CAPACITIES = ("on-demand", "spot", "reserved", "flex-start")
_SPOT = "spot"


@dataclass(frozen=True)
class Price:
    """Of one slice.

    Attributes:
      hour: US dollars an hour, all chips of all slices together.
      told: how it is known, for a line.
    """

    hour: float
    told: str


@cache
def table() -> dict[str, Any]:
    """The file: by chip and region, on demand and spot."""
    return json.loads(FILE.read_text())


def of(shape: Shape, slices: int, zone: str, capacity: str, given: float | None = None) -> Price:
    """What slices cost an hour.

    Args:
      shape: of each.
      slices: how many.
      zone: where.
      capacity: one of ``CAPACITIES``. A reservation and flex-start have prices of their own, at most that on demand, which is
        taken for them.
      given: US dollars a chip and hour, in place of the table.

    Raises:
      UserError: the table has no price for such a chip there.
    """
    chips = slices * shape.chips
    if given is not None:
        return Price(chips * given, f"{chips} chips at ${given:g} an hour each, as given")
    region, chip = zone.rpartition("-")[0], shape.generation.name
    known = table()[chip]
    if region not in known:
        raise UserError(
            f"--zone {zone}: {FILE.name} knows no {chip} there, but in {', '.join(known)}; choose a zone of those, or give "
            "--price, US dollars a chip and hour."
        )
    each = known[region][capacity == _SPOT]
    kind = "on demand, at most" if capacity in ("reserved", "flex-start") else capacity
    return Price(chips * each, f"{chips} chips at ${each:g} an hour each ({kind}, {region}, as of {table()['read']})")
