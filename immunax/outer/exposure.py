"""Which attacks of a suite a defense trained against: the others are held out, and weigh more in a certificate."""

from typing import Any

from immunax.outer.attacker_population import AttackerPopulation

FULL, ADAPTERS = "harmful_sft", "harmful_sft_lora"


def trained_against(defense: Any) -> tuple[str, ...]:
    """Families of attacks, by the names that suites give them.

    Args:
      defense: one that simulates fine-tuning attackers has a field ``attacker``; one that trains against another attack says so
        in a class attribute ``against``. Any other one simulates no attack.
    """
    attacker = getattr(defense, "attacker", None)
    if attacker is None:
        return tuple(getattr(type(defense), "against", ()))
    kinds = attacker.attackers() if isinstance(attacker, AttackerPopulation) else (attacker,)
    return tuple(sorted({FULL if kind.lora is None else ADAPTERS for kind in kinds}))
