"""Measures one of immunax's sides of a case, and writes what it found; ``launch.py`` runs it.

    python benchmarks/accelerated/measure.py CASE SIDE FILE [--tiny]

It computes on whatever device jax finds first, and tells XLA nothing of it.
"""

from typing import Any

import jax
from peak import product_seconds

from accelerated import child
from accelerated.catalogue import ATTENTIONS, PEAK, named
from accelerated.models import dtype_on, model_of, settle
from accelerated.programs import work_of
from accelerated.record import SKIPPED, skipped
from accelerated.work import facts, measure
from immunax.inner.memory import free_bytes
from immunax.models.kernels import choice


def matrix_peak(tiny: bool) -> dict[str, Any]:
    """A large product in the dtype that models are computed in here."""
    size, dtype = (256 if tiny else 8192), dtype_on(choice.platform())
    return {
        "seconds": product_seconds(size, dtype, 10, 5),
        "units": 1,
        "flops": 2.0 * size**3,
        "details": {"dtype": dtype},
    }


def found(name: str, side: str, tiny: bool) -> dict[str, Any]:
    """The fields of a row."""
    if tiny:
        jax.config.update("jax_disable_most_optimizations", True)  # nothing but compilation takes time then
    if name == PEAK:
        return matrix_peak(tiny)
    case, platform, memory = named(name), choice.platform(), free_bytes()
    sizes = case.sized(tiny, memory)
    if sizes is None:
        return skipped(case, memory)
    if ATTENTIONS.get(side) not in (None, platform):
        return {"status": SKIPPED, "reason": f"is for a {ATTENTIONS[side]}, and this is a {platform}"}
    if "shape" in sizes:
        settle(model_of(sizes, platform), platform)
    if case.kind == "population":
        from accelerated.populations import measure_population

        return measure_population(sizes, platform)
    return measure(work_of(case, side, sizes, platform), sizes["repeats"])


if __name__ == "__main__":
    child.main(__doc__ or "", found, facts)
