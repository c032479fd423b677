"""Does a train step fit a slice of TPUs, and what bounds it? Asked of XLA's own compiler, with no TPU present."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from immunax.models.model import Model
from immunax.outer.defense import Defense
from immunax.outer.training import Training
from immunax.pod import hlo
from immunax.pod.abstract_step import abstract_batch, abstract_state, trace_step
from immunax.pod.chips import Chip
from immunax.pod.traffic import Traffic, traffic
from immunax.runtime.jaxpr_flops import matmul_flops
from immunax.runtime.slices import slice_sizes

_TEMPORARIES = re.compile(r"total memory required for HLO temporaries \(([\d.]+)([KMGT]?)\)")
_TOTAL = re.compile(r"Used ([\d.]+)([KMGT]?) of")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
      arguments: weights, optimizer, what the defense carries, and the batch.
      outputs: of which the donated arguments' memory holds all but the scalars.
      temporaries: None where the compiler gave up before it had placed them.
      peak: the most that is alive at once.
    """

    arguments: int
    outputs: int
    temporaries: int | None
    peak: int


@dataclass(frozen=True)
class Fit:
    """What was found out.

    Attributes:
      memory: as the compiler laid it out, or as far as it came.
      fits: whether the compiler accepted it, and the peak is within the memory of a chip.
      flops: of the step's products on all devices, each computed once.
      recomputed: FLOPs that ``compute.remat`` adds to them.
      traffic: of each device; None where the compiler gave up.
      refusal: why, where it does not fit.
    """

    memory: Memory
    fits: bool
    flops: float
    recomputed: float
    traffic: Traffic | None = None
    refusal: str = ""


def compile_step(model: Model, defense: Defense, training: Training, devices: Mesh, chip: Chip) -> Fit:
    """Compiles the train step for a mesh of devices that need not exist.

    Args:
      model, defense, training: as ``immunax.train`` builds them.
      devices: of :func:`~immunax.pod.chips.compile_only_devices`.
      chip: that these are of; a step that the compiler takes and that passes its memory all the same does not fit.

    Raises:
      UserError: the defense refuses this model.
    """
    batch = abstract_batch(defense.mixture, training, devices)
    state = abstract_state(model, defense, training, batch, devices)

    def traced(model: Model) -> Any:
        return trace_step(model, defense, training, state, batch, devices)

    return compile_traced(traced, model, (state, batch), devices, chip)


def compile_traced(
    traced: Callable[[Model], Any], model: Model, inputs: Any, devices: Mesh, chip: Chip, turns: int | None = None
) -> Fit:
    """Compiles a traced function for a mesh of devices that need not exist.

    Args:
      traced: of a model, as ``jitted.trace(...)`` gives it.
      model: that of the program that is asked about.
      inputs: shapes, sharded.
      devices, chip: as for :func:`compile_step`.
      turns: of a loop whose length is an input; the compiled one counts as one turn.
    """
    program = traced(model)
    flops, kept = (matmul_flops(each.jaxpr, turns) for each in (program, traced(replace(model, remat="none"))))
    in_kernels = flops - matmul_flops(program.jaxpr, turns, kernels=False)
    with jax.set_mesh(devices):
        lowered = program.lower()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        refusal = next(line.strip() for line in str(error).splitlines() if "RESOURCE_EXHAUSTED" in line)
        return Fit(refused_memory(device_bytes(inputs), refusal), False, kept, flops - kept, refusal=refusal)
    found = compiled.memory_analysis()
    # The sum of arguments, outputs and temporaries counts what is never alive at once, and passes the memory of a step that fits.
    memory = Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.temp_size_in_bytes,
        found.peak_memory_in_bytes,
    )
    counted = traffic(hlo.parse(compiled.as_text()), dict(devices.shape), slice_sizes(devices))
    # The compiled text does not say what a kernel multiplies.
    counted.flops += in_kernels / devices.size
    passed = f"the compiled step takes {memory.peak} bytes of the {chip.hbm_bytes} that a device has"
    fits = memory.peak <= chip.hbm_bytes
    return Fit(memory, fits, kept, flops - kept, counted, "" if fits else passed)


def device_bytes(tree: Any) -> int:
    """Bytes of a pytree of sharded shapes on each device."""
    return sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _leaf_bytes(leaf: Any) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape)
    size = 8 if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf.dtype.itemsize
    for extent in shape:
        size *= extent
    return size


def refused_memory(arguments: int, refusal: str) -> Memory:
    """What a program would have needed, as far as XLA's message of ``RESOURCE_EXHAUSTED`` says.

    Args:
      arguments: bytes of each device.
      refusal: the message.
    """
    temporaries, total = _size(_TEMPORARIES, refusal), _size(_TOTAL, refusal)
    peak = total if total is not None else arguments + (temporaries or 0)
    return Memory(arguments, arguments, temporaries, max(peak, arguments))


def _size(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def roofline(fit: Fit, chip: Chip, devices: int) -> Mapping[str, float]:
    """Seconds that each part of a device needs at its peak, with all else for free; the largest bounds the step.

    ``compute`` counts the products that the compiled program has, recomputed and replicated ones too.

    Args:
      fit: of a step that fits.
      chip: peaks.
      devices: how many.
    """
    counted = fit.traffic
    if counted is None:
        return {"compute": (fit.flops + fit.recomputed) / devices / chip.flops}
    return {
        "compute": counted.flops / chip.flops,
        "HBM": counted.hbm_bytes / chip.hbm_bandwidth,
        "interconnect": sum(counted.sent.values()) / chip.ici_bandwidth,
        "DCN": sum(counted.sent_over_dcn.values()) / chip.dcn_bandwidth,
    }


def step_seconds(fit: Fit, chip: Chip, devices: int) -> float:
    """The least time of a step: its largest part, or its products and then the collectives that it waits for.

    Args:
      fit, chip, devices: as for :func:`roofline`.
    """
    parts = roofline(fit, chip, devices)
    waited = 0.0 if fit.traffic is None else fit.traffic.waited / chip.ici_bandwidth
    return max(*parts.values(), parts["compute"] + waited)
