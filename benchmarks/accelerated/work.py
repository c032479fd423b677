"""A program with its inputs, which can be timed where it runs and read where it only compiles."""

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp

from immunax.inner.memory import free_bytes
from immunax.models.kernels import choice
from immunax.models.model import Model
from immunax.runtime.jaxpr_flops import matmul_flops


@dataclass(frozen=True)
class Work:
    """One repeat of a case.

    Attributes:
      function: of the inputs, as arrays of a jitted program.
      weights: makes what the inputs are made of.
      inputs: of the weights, whose memory they may take over.
      units: tokens, steps or calls of one run of the function.
      flops: that these need by their mathematics; None where ``counted`` is to be traced for them.
      counted: a function of the same inputs whose products are counted, what is computed twice left out.
      turns: of a loop in it whose length is an input.
      carried: the first input is donated, and the first output takes its place in the next run.
      calls: runs of a repeat.
      warm: runs before the first repeat.
      details: to be told beside the figures.
      seen: details of the last outputs.
    """

    function: Callable[..., Any]
    weights: Callable[[], Any]
    inputs: Callable[[Any], tuple[Any, ...]]
    units: float
    flops: float | None = None
    counted: Callable[..., Any] | None = None
    turns: int | None = None
    carried: bool = True
    calls: int = 1
    warm: int = 2
    details: Mapping[str, Any] = field(default_factory=dict)
    seen: Callable[[Any], dict[str, Any]] = lambda outputs: {}

    @property
    def program(self) -> Any:
        """The function under ``jax.jit``."""
        return jax.jit(self.function, donate_argnums=0 if self.carried else ())

    def needed_flops(self, inputs: Any) -> float | None:
        """FLOPs of one run, given inputs or their shapes."""
        if self.flops is not None or self.counted is None:
            return self.flops
        return matmul_flops(jax.jit(self.counted).trace(*inputs).jaxpr, self.turns)


def measure(work: Work, repeats: int) -> dict[str, Any]:
    """Times a work: the fields of a :class:`~accelerated.record.Row` that its process knows."""
    inputs = jax.jit(work.inputs, donate_argnums=0)(work.weights())
    flops = work.needed_flops(inputs)
    begin = time.perf_counter()
    program = work.program.lower(*inputs).compile()
    compile_seconds = time.perf_counter() - begin
    outputs: Any = None

    def run() -> None:
        nonlocal inputs, outputs
        for _ in range(work.calls):
            outputs = program(*inputs)
            inputs = (outputs[0], *inputs[1:]) if work.carried else inputs

    for _ in range(work.warm):
        run()
    jax.block_until_ready((inputs, outputs))
    seconds = timed(run, lambda: jax.block_until_ready((inputs, outputs)), repeats)
    return {
        "seconds": seconds,
        "units": work.units * work.calls,
        "flops": None if flops is None else flops * work.calls,
        "peak_bytes": peak_bytes(),
        "compile_seconds": compile_seconds,
        "details": {**work.details, **work.seen(outputs)},
    }


def timed(run: Callable[[], Any], ready: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each repeat, until everything it made is there."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        ready()
        seconds.append(time.perf_counter() - begin)
    return seconds


def random_key(seed: int) -> jax.Array:
    """Of random data, by the device's own generator: programs that draw by it are the smallest."""
    return jax.random.key(seed, impl="rbg")


def random_weights(model: Model, dtype: str = "float32") -> Any:
    """Normal(0, 0.02) matrices and unit norms, the largest leaf first and one at a time, so that making them sets no peak."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    paths, structure = jax.tree_util.tree_flatten_with_path(shapes)
    leaves: list[Any] = [None] * len(paths)
    for place in sorted(range(len(paths)), key=lambda place: -paths[place][1].size):
        path, leaf = paths[place]
        ones = path[-1].key == "scale"
        leaves[place] = _drawn(random_key(place), leaf.shape, dtype, ones)
    return jax.tree.unflatten(structure, leaves)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _drawn(drawing: jax.Array, shape: tuple[int, ...], dtype: str, ones: bool) -> jax.Array:
    return jnp.ones(shape, dtype) if ones else (0.02 * jax.random.normal(drawing, shape)).astype(dtype)


def peak_bytes() -> int:
    """The most that this process held: of the device's memory, or where that is the host's of its own."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def facts() -> dict[str, Any]:
    """The device of this process, its memory, and the versions that decide what runs on it."""
    device = jax.local_devices()[0]
    packages = ("jax", "jaxlib", "flax", "optax")
    return {
        "device": device.device_kind,
        "platform": choice.platform(),
        "memory": free_bytes(),
        "versions": {name: version(name) for name in packages},
    }
