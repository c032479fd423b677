"""A CPU as several devices, ``XLA_FLAGS=--xla_force_host_platform_device_count=N``, without a deadlock.

XLA gives its CPU client one pool of as many threads as there are cores, or devices if those are more. A thread that
waits in a collective for the other devices keeps its place in the pool, and a program runs collectives over several
axes at once, in an order of their own on each device: on few cores they fill the pool, and none ever ends. A larger pool
has its price, threads that spin for work on cores that others could use: members of a population, spread over as many devices as
there are cores, were 1.4 times as slow with 16 threads on 2 cores as with 2. They never wait for one another and need none.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

_FLAG = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_POOL = "PJRT_NPROC"
_WAITING = ("data", "fsdp", "tensor")
_COLLECTIVES = 8
"""Collectives that one device may have under way: a sharded training step was seen to have 4."""


def make_room(sizes: Mapping[str, Any] | None = None, environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes the pool large enough that collectives cannot fill it. Call it before anything uses a device.

    Args:
      sizes: of the axes of the mesh, as a :class:`~immunax.runtime.mesh.MeshSpec` has them; where ``attack`` alone is
        used, nothing is changed. None for any mesh.
      environment: read for ``XLA_FLAGS``, and given ``PJRT_NPROC`` where several devices are forced and it is not set.
    """
    found = _FLAG.findall(environment.get("XLA_FLAGS", ""))
    devices = int(found[-1]) if found else 1
    waits = sizes is None or any(sizes.get(axis, 1) != 1 for axis in _WAITING)
    if devices > 1 and waits:
        environment.setdefault(_POOL, str(max(_COLLECTIVES * devices, os.cpu_count() or 1)))
