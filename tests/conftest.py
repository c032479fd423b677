"""Eight forced CPU devices for every test, set before anything imports jax."""

import os
from pathlib import Path

import pytest

from immunax.runtime.host_devices import make_room

_DEVICES = "--xla_force_host_platform_device_count"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("HYDRA_FULL_ERROR", None)
_kept = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_DEVICES)]
# Programs here run for milliseconds and compile for seconds: LLVM's optimisations would cost more than they save.
os.environ["XLA_FLAGS"] = " ".join(["--xla_backend_optimization_level=0", *_kept, f"{_DEVICES}=8"])
make_room()

_MAPS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Every compiled program holds memory maps, of which Linux gives a process 65,530: one more is a crash in the compiler."""
    yield
    if _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > 20_000:
        import jax

        jax.clear_caches()
