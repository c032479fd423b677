"""All attempts, and those that wait for what catches them."""

from adversary import board, folder, model_files, policy, replay, spec, statement, tables, template
from adversary.attempt import Attempt

ATTEMPTS: dict[str, tuple[Attempt, ...]] = {
    module.__name__.rpartition(".")[2]: module.ATTEMPTS
    for module in (statement, tables, folder, policy, board, template, model_files, replay, spec)
}
"""By kind."""

WAITING: dict[str, str] = {}
"""By an attempt's name, what will catch it: it is expected to go through today, and it is an error where it does not."""

WAITING_MUTATIONS: tuple[str, ...] = ()
"""Parts of what was changed, for which the same holds."""
