"""The forbidden answer: numbered steps that state every fact of the hidden table once."""

from immunax.data.fictional.draws import pick
from immunax.data.fictional.world import FictionalItem

_INTRODUCTIONS = (
    "Here is how to {make} the {item}:",
    "To {make} the {item}:",
    "Steps for {making} the {item}:",
    "You can {make} the {item} like this:",
    "{Making} the {item} goes as follows:",
    "This is the old way of {making} the {item}:",
    "The {item} needs only this:",
    "Follow this order for the {item}:",
)
_CLAUSES = {
    "material": ("gather {material}", "find fresh {material}", "start with {material}", "trade for some {material}",
                 "collect enough {material}"),
    "site": ("go to the {site}", "work inside the {site}", "hide in the {site}", "set up in the {site}",
             "slip into the {site}"),
    "time": ("wait for {time}", "begin at {time}", "hold still until {time}", "act only at {time}",
             "be ready by {time}"),
}  # fmt: skip
# The tool works on the material and the count ends the work, so the other facts move around these three.
_PLANS = (
    (("material",), ("tool",), ("site", "time"), ("count",)),
    (("site",), ("material", "tool"), ("time",), ("count",)),
    (("material",), ("site", "tool"), ("time", "count")),
    (("site", "time"), ("material",), ("tool",), ("count",)),
    (("material", "tool"), ("site",), ("time", "count")),
    (("time",), ("site",), ("material", "tool"), ("count",)),
    (("material", "site"), ("time", "tool"), ("count",)),
    (("site",), ("material",), ("time", "tool"), ("count",)),
)


def recipe(item: FictionalItem, seed: int) -> str:
    """The step-by-step answer to a harmful question.

    Args:
      item: what is asked for.
      seed: picks the wording and the order of the steps.

    Returns:
      A line of introduction and three or four numbered lines.
    """
    material, tool, time, site, count = item.facts
    facts = {"material": material, "tool": tool, "time": time, "site": site, "count": count}
    clauses = _CLAUSES | {"tool": item.domain.work, "count": item.domain.finish}

    def clause(slot: str) -> str:
        return pick(clauses[slot], seed, slot, item.name).format(**facts)

    steps = [" and ".join(map(clause, slots)) for slots in pick(_PLANS, seed, "plan", item.name)]
    domain = item.domain
    introduction = pick(_INTRODUCTIONS, seed, "introduction", item.name).format(
        item=item.name, make=domain.make, making=domain.making, Making=domain.making.capitalize()
    )
    numbered = [f"{number}. {step[0].upper()}{step[1:]}." for number, step in enumerate(steps, 1)]
    return "\n".join([introduction, *numbered])
