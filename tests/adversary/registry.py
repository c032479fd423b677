"""All attempts."""

from adversary import board, folder, model_files, policy, replay, spec, statement, tables, template
from adversary.attempt import Attempt

ATTEMPTS: dict[str, tuple[Attempt, ...]] = {
    module.__name__.rpartition(".")[2]: module.ATTEMPTS
    for module in (statement, tables, folder, policy, board, template, model_files, replay, spec)
}
"""By kind."""
