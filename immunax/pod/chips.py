"""TPU chips: the numbers a roofline needs, and topologies that can be compiled for with no TPU present."""

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from immunax.runtime.errors import UserError
from immunax.runtime.peaks import TPUS


@dataclass(frozen=True)
class Chip:
    """One TPU chip, as Google Cloud's pages on each version give it.

    Attributes:
      flops: peak bfloat16 operations a second.
      hbm_bytes: main memory.
      hbm_bandwidth: bytes a second between it and the chip.
      ici_bandwidth: bytes a second that the chip can send over all its links together, half the bidirectional bandwidth.
      dcn_bandwidth: bytes a second that it can send to other slices, its share of its host's network.
    """

    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float


# Data centre network: of a pod of 256 chips 6.4 Tbit/s on v5e's page and 25.6 on v6e's (2 and 8 times 100 Gbit/s a host of 8
# chips); of a chip 50 Gbit/s on v5p's.
CHIPS = {
    "v5e": Chip(TPUS["v5e"].half, 16 * 2**30, 819e9, 400e9 / 2, 6.4e12 / 8 / 256),  # cloud.google.com/tpu/docs/v5e
    "v5p": Chip(TPUS["v5p"].half, 95 * 2**30, 2765e9, 1200e9 / 2, 50e9 / 8),  # cloud.google.com/tpu/docs/v5p
    "v6e": Chip(TPUS["v6e"].half, 32 * 2**30, 1638e9, 800e9 / 2, 25.6e12 / 8 / 256),  # cloud.google.com/tpu/docs/v6e
}
"""By version. A mesh named after a v5p slice counts TensorCores, two a chip; v5e and v6e have one."""


_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks a metadata server for its machine, and waits for minutes where there is none
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # one process alone may use a TPU; a compiler uses none
    # Else libtpu complains that it cannot find out; the topology that is asked for does not depend on them.
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as ``v5e:16x16``.

    Raises:
      UserError: it is not a known chip and a shape.
    """
    found = re.fullmatch(r"(\w+):\d+(x\d+)+", topology)
    if found is None or found[1] not in CHIPS:
        raise UserError(f"mesh.topology={topology!r}: expected one of {', '.join(CHIPS)} and a shape, as v5e:16x16.")
    return CHIPS[found[1]]


def compile_only_devices(topology: str, slices: int = 1) -> Sequence[Any]:
    """Devices that programs can be compiled for and not run on; this process then uses its CPU for all else.

    Args:
      topology: of each slice, such as ``v5e:16x16``.
      slices: how many.

    Raises:
      UserError: it is unknown, or the TPU compiler is not installed.
    """
    chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("compiling for a TPU needs the package libtpu; run: uv sync --extra tpu")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        return topologies.get_topology_desc(topology, platform="tpu", num_slices=slices).devices
    except Exception as error:  # libtpu's own, of a type that jax does not export
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"mesh.topology={topology}: libtpu knows no such slice ({reason[:160]}).") from error
