"""How much of a compiled step can be examples at all: a mesh forces rows on a batch that it has no examples for."""

from immunax.data.packing import Tokens
from immunax.outer.defense import Mixture


def largest(mixture: Mixture, ways: int) -> dict[str, Tokens]:
    """By stream, the most rows of a compiled step that are examples, in place of their tokens.

    Args:
      mixture: examples a batch; a compiled batch has one a row, as :func:`~immunax.pod.abstract_step.abstract_batch` lays them.
      ways: that the mesh splits rows over.
    """

    def rows(count: int, batches: int = 1) -> Tokens:
        return Tokens(count * batches, -(-count // ways) * ways * batches)

    counts = {"safe": mixture.safe, "harmful": mixture.harmful, "retain": mixture.retain}
    found = {name: rows(count) for name, count in counts.items() if count}
    if (attack := mixture.simulation) is not None:
        found["simulation_attack"] = rows(attack.batch, attack.steps * (1 + attack.mixed))
        found["simulation_checks"] = rows(attack.check, attack.checks * (1 + attack.paired))
    return found
