"""The defense of a configuration, and whom it trains against."""

from dataclasses import replace

from immunax.outer.defense import Defense
from immunax.runtime.errors import UserError
from immunax.runtime.user_config import UserConfig


def defender(config: UserConfig) -> Defense:
    """The defense, against the attackers of the group ``attacker`` where one is chosen.

    Args:
      config: with the group ``defense``.

    Raises:
      UserError: attackers are chosen, and the defense simulates none.
    """
    defense = config.build("defense")
    if "attacker" not in config:
        return defense
    if defense.attacker is None:
        name = type(defense).__name__
        raise UserError(f"attacker: {name} simulates no attacker; leave it out, or choose defense=tar, mlac or sophon.")
    return replace(defense, attacker=config.build("attacker"))  # pyright: ignore[reportArgumentType]
