"""An H200 for XLA's compiler, on a machine without one."""

import importlib.util
from typing import Any

import jax
from jax.experimental import topologies

PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
MISSING = "compiling for an H200 needs jax's CUDA plugin, and no GPU; run: uv sync --extra cuda"
NAME = "NVIDIA H200"

# The chip as NVIDIA's H200 data sheet and CUDA's tables of compute capability 9.0 describe it: 132 multiprocessors of 128 lanes,
# 64 registers of 4 bytes for each of 1,024 × 64 threads, 228 KiB of shared memory of which a block may have 227, 50 MiB of L2
# cache, 141 GB of memory at 4.8 TB/s.
_CHIP = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_core": 228 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "threads_per_core_limit": 2048,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "memory_bandwidth": 4_800_000_000_000,
    "l2_cache_size": 50 * 2**20,
    "clock_rate_ghz": 1.98,
    "device_memory_size": 141_000_000_000,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
}
_CUDNN = (9, 10, 0)


def check_compiler() -> None:
    """Refuses an environment without the compiler."""
    if not any(importlib.util.find_spec(name) is not None for name in PLUGINS):
        raise SystemExit(MISSING)


def device() -> Any:
    """A device that programs can be compiled for and not run on; this process uses its CPU for all else.

    To be called before jax has looked for devices.
    """
    jax.config.update("jax_platforms", "cpu")
    described = topologies.get_topology_desc(
        platform="cuda", topology_name=NAME, topology="1x1x1", target_config=description()
    )
    return described.devices[0]


def description() -> str:
    """The chip as a ``GpuTargetConfigProto`` in protobuf's text format."""
    numbers = " ".join(f"{name}: {value}" for name, value in _CHIP.items())
    cudnn = " ".join(f"{name}: {value}" for name, value in zip(("major", "minor", "patch"), _CUDNN, strict=True))
    return (
        f"gpu_device_info {{ {numbers} cuda_compute_capability {{ major: 9 }} }} "
        f'platform_name: "CUDA" dnn_version_info {{ {cudnn} }} device_description_str: "{NAME}"'
    )
