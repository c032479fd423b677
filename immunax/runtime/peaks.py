"""What devices could compute at most: the denominator of a utilisation.

Of dense matrix products, as their makers' data sheets have it; where one tells of sparse products alone, half of that. Products
of bfloat16 accumulate in float32. Products of float32 are those of all its bits (``compute.dtype=float32``): what accelerators
make of them by default has fewer, and no peak here.
"""

import re
from typing import NamedTuple

import jax


class Peak(NamedTuple):
    """Operations a second of one device, a multiplication and an addition being two.

    Attributes:
      half: of bfloat16 and float16.
      single: of float32, exact.
    """

    half: float
    single: float


def _tpu(half: float) -> Peak:
    # The matrix unit takes bfloat16: an exact float32 product is six passes of it (jax.lax.Precision.HIGHEST).
    return Peak(half, half / 6)


TPUS = {
    "v5e": _tpu(197e12),  # cloud.google.com/tpu/docs/v5e
    "v5p": _tpu(459e12),  # cloud.google.com/tpu/docs/v5p
    "v6e": _tpu(918e12),  # cloud.google.com/tpu/docs/v6e
}
"""By version, of a chip: what JAX calls a device of it."""

_HOPPER = Peak(989.4e12, 66.9e12)

_KINDS = {
    r"TPU v5( lite|e)": TPUS["v5e"],
    r"TPU v5p?": TPUS["v5p"],
    r"TPU v6( lite|e)": TPUS["v6e"],
    r"NVIDIA H100 80GB HBM3": _HOPPER,  # SXM; NVIDIA H100 Tensor Core GPU Architecture, table 3
    r"NVIDIA H100 PCIe": Peak(756e12, 51.2e12),  # there
    r"NVIDIA H200": _HOPPER,  # SXM, the same chip; NVIDIA H200 data sheet
    r"NVIDIA A100(-SXM4-[48]0GB|-PCIE-40GB|-SXM-[48]0GB| 80GB PCIe)": Peak(312e12, 19.5e12),  # NVIDIA A100 data sheet
    r"NVIDIA L40S": Peak(362.05e12, 91.6e12),  # NVIDIA L40S data sheet
    r"NVIDIA L4": Peak(121e12, 30.3e12),  # NVIDIA L4 data sheet
    r"NVIDIA GeForce RTX 4090": Peak(165.2e12, 82.6e12),  # NVIDIA Ada GPU Architecture, appendix A
    r"NVIDIA B200": Peak(2250e12, 75e12),  # NVIDIA HGX B200 data sheet, an eighth
    r"AMD Instinct MI300X( OAM)?": Peak(1307.4e12, 163.4e12),  # AMD Instinct MI300X data sheet
}
"""By what a device calls itself, whole: a slice of a card (``... MIG 3g.71gb``) has not the card's peak."""

_given: dict[str, float] = {}


def give(dtype: str, flops: float | None) -> None:
    """Has a device of this process count as of a peak that the user knows, from now on.

    Args:
      dtype: of the computation.
      flops: operations a second in it; None for what is known of the device here.
    """
    _given.clear()
    if flops is not None:
        _given[dtype] = flops


def peak(dtype: str) -> float | None:
    """Operations a second of one device of this process; None where nobody knows, as of a CPU.

    Args:
      dtype: of the computation.
    """
    exact = jax.config.jax_default_matmul_precision == "highest"  # pyright: ignore[reportAttributeAccessIssue]
    return _given.get(dtype) or of_kind(jax.local_devices()[0].device_kind, dtype, exact)


def of_kind(kind: str, dtype: str, exact: bool) -> float | None:
    """Operations a second of a device by its name; None for one that is not in the table.

    Args:
      kind: as JAX has it (``device_kind``).
      dtype: of the computation.
      exact: whether products of float32 are of all its bits.
    """
    found = next((each for pattern, each in _KINDS.items() if re.fullmatch(pattern, kind)), None)
    if found is None:
        return None
    if dtype in ("bfloat16", "float16"):
        return found.half
    return found.single if dtype == "float32" and exact else None
