"""Which attacks of a suite a defense trained against: one of them that the suite holds out is no test of it any more."""

from immunax.outer.defense import Defense

FULL, ADAPTERS = "harmful_sft", "harmful_sft_lora"


def trained_against(defense: Defense) -> tuple[str, ...]:
    """Families of attacks, by the names that suites give them: of the attackers it simulates, and those it names itself."""
    attackers = () if defense.attacker is None else defense.attacker.attackers()
    return tuple(sorted({*defense.against, *(FULL if each.lora is None else ADAPTERS for each in attackers)}))
