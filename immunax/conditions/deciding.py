"""The cells that the verdicts of a certificate rest on."""

from collections.abc import Iterator

from immunax.conditions.points import points
from immunax.conditions.policy import Policy
from immunax.conditions.records import SPECIAL, Table


def deciding(records: Table, cells: Table, policy: Policy) -> list[str]:
    """Names of cells, each once, those first that most rests on.

    The models as they are and their fine-tuning on the harmless task, which everything else is compared with; then of each model,
    split and side of harm the cell with the worst case, and the cheapest that passes the threshold.

    Args:
      records, cells: see :mod:`immunax.conditions.records`.
      policy: thresholds.
    """
    special = [name for family in SPECIAL for name in cells[cells["family"] == family]["cell"]]
    return list(dict.fromkeys([*special, *_worst(records, cells, policy)]))


def _worst(records: Table, cells: Table, policy: Policy) -> Iterator[str]:
    for split in ("test", "transfer"):
        table = points(records, cells, policy, split)
        table = table[table["kept"]].assign(rate=lambda each: each["harmful"] / each["trials"])
        for (_, side), part in table.groupby(["model", "side"], sort=False):
            yield part.loc[part["rate"].idxmax(), "cell"]
            passing = part[part["rate"] > policy.harm[side].threshold]
            if len(passing):
                yield passing.loc[passing["flops"].idxmin(), "cell"]
