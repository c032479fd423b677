"""A CPU as several devices, ``XLA_FLAGS=--xla_force_host_platform_device_count=N``, without a deadlock.

XLA gives its CPU client one pool of as many threads as there are cores, or devices if those are more. A thread that
waits in a collective for the other devices keeps its place in the pool, and a program runs collectives over several
axes at once, in an order of their own on each device: on few cores they fill the pool, and none ever ends.
"""

import os
import re
from collections.abc import MutableMapping

_FLAG = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_POOL = "PJRT_NPROC"
_COLLECTIVES = 8
"""Collectives that one device may have under way: a sharded training step was seen to have 4."""


def make_room(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes the pool large enough that collectives cannot fill it. Call it before anything uses a device.

    Args:
      environment: read for ``XLA_FLAGS``, and given ``PJRT_NPROC`` where several devices are forced and it is not set.
    """
    found = _FLAG.findall(environment.get("XLA_FLAGS", ""))
    devices = int(found[-1]) if found else 1
    if devices > 1:
        environment.setdefault(_POOL, str(max(_COLLECTIVES * devices, os.cpu_count() or 1)))
