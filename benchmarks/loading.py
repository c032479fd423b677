"""Host memory to load a bfloat16 checkpoint and to write it again, beside what the process's devices hold of it.

    uv run python benchmarks/loading.py [--layers 30] [--widen 1] [--processes 2]

The checkpoint is made on the fly: SmolLM2-135M's shape, widened as asked, with random rows, as ``transformers`` would write it.
Each way runs in processes of its own. Memory is the peak of the resident set less what the process had before, the libraries
loaded and JAX started; on a CPU the arrays themselves are in it. Several CPU processes take jax 0.11 or later.
"""

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

DEVICES = 8
WHOLE = "whole tree, then to the device"
WAYS = (WHOLE, "float32", "bfloat16", f"float32 on {DEVICES} devices", f"bfloat16 on {DEVICES} devices")


def write_checkpoint(folder: Path, layers: int, widen: int) -> None:
    """A bfloat16 folder of random weights, of which this process never holds more than one tensor."""
    import jax
    import numpy as np

    from immunax.models import hf_config, hub
    from immunax.models.model import Model

    loaded = hub.resolve("smollm2").load()
    wider = {name: widen * getattr(loaded.config, name) for name in ("d_model", "d_ff", "n_heads", "n_kv_heads")}
    config = replace(loaded.config, n_layers=layers, **wider)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(Model(config).init, jax.random.key(0))
    params = jax.tree.map(
        lambda leaf: np.broadcast_to(rng.standard_normal(leaf.shape[-1], np.float32), leaf.shape), shapes
    )
    made = replace(loaded, config=config, hf_config={**loaded.hf_config, **hf_config.build_config(config, {})})
    hub.export(folder, made, params, "bfloat16")


def resident(peak: bool) -> int:
    """Bytes of this process in memory, now or at their peak since :func:`forget_peak`."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:" if peak else "VmRSS:"))


def forget_peak() -> None:
    """Lets the kernel count the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def whole_tree(folder: Path):
    """The old way: a float32 tree of the host, and from that the arrays."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from safetensors import safe_open

    from immunax.models import families, hf_config, weights

    config = hf_config.parse_config(weights.read_json(folder / "config.json"), str(folder))
    shards = weights.find(folder)

    def leaf(tensor) -> np.ndarray:
        made = np.empty((config.n_layers if tensor.stacked else 1, *tensor.leaf_shape), np.float32)
        for layer in range(len(made)):
            name = tensor.name.format(layer=layer)
            with safe_open(shards.directory / shards.entries[name].file, framework="np") as file:
                value = file.get_tensor(name)
            made[layer] = value.T if tensor.transpose else value
        return made if tensor.stacked else made[0]

    tree = {path: leaf(tensor) for path, tensor in families.tensors(config).items()}
    return jax.tree.map(jnp.asarray, tree)


def measure(way: str, folder: Path) -> dict[str, float]:
    """Bytes beside the start: at the peak of loading and of writing, and what this process's devices hold."""
    import jax

    from immunax.models import hub
    from immunax.models.hub import ModelSource
    from immunax.runtime.mesh import MeshSpec, build

    jax.block_until_ready(jax.numpy.ones(8) + 1)
    devices = build(MeshSpec(fsdp=-1)) if "devices" in way else None
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast.from_pretrained(folder)  # warm: the tokenizer's memory is no matter of the loader
    before = resident(peak=False)
    forget_peak()
    source, dtype = ModelSource(str(folder)), way.split()[0]
    if way == WHOLE:
        params = whole_tree(folder)
        return {"load": resident(peak=True) - before, "held": held(params)}
    made = source.load(devices, dtype)
    found = {"load": resident(peak=True) - before, "held": held(made.params)}
    forget_peak()
    hub.export(folder.parent / "written", made, made.params, dtype)
    return {**found, "write": resident(peak=True) - before}


def held(params) -> int:
    """Bytes of the different parts that this process's devices hold; a CPU's devices share those that are the same."""
    import jax

    parts = (
        {str(part.index): part.data.nbytes for part in leaf.addressable_shards} for leaf in jax.tree.leaves(params)
    )
    return sum(size for leaf in parts for size in leaf.values())


def join(port: int, processes: int, process: int) -> None:
    """Makes this process one of several."""
    from immunax.runtime.distributed import Distributed, begin

    begin(Distributed(f"localhost:{port}", processes, process), dict)


def run(way: str, folder: Path, processes: int) -> list[dict[str, float]]:
    """What each of the processes that load a folder together measures."""
    flags = f"--xla_force_host_platform_device_count={DEVICES // processes}" if "devices" in way else ""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--processes", str(processes), "--one", way, str(folder), str(port)]
    started = [
        subprocess.Popen([*command, str(each)], env=env, stdout=subprocess.PIPE, text=True) for each in range(processes)
    ]
    return [json.loads(each.communicate()[0]) for each in started]


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--widen", type=int, default=1, help="times the widths of SmolLM2-135M")
    parser.add_argument("--processes", type=int, default=1, help="that the devices are shared out to")
    parser.add_argument("--way", action="append", choices=WAYS, help="one of them; may be given several times")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, folder, port, process = options.one
        join(int(port), options.processes, int(process))
        print(json.dumps(measure(way, Path(folder))))
        return
    ways = options.way or [way for way in WAYS if options.processes == 1 or "devices" in way]
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "model"
        write_checkpoint(folder, options.layers, options.widen)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        print(f"file: {size / 2**20:.0f} MiB; processes: {options.processes}\n")
        print("| way | held, MiB | peak of loading, MiB | of held | of the file | peak of writing, of held |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for way in ways:
            worst = max(run(way, folder, options.processes), key=lambda each: each["load"] / each["held"])
            load, write = (worst.get(each, math.nan) / worst["held"] for each in ("load", "write"))
            print(
                f"| {way} | {worst['held'] / 2**20:.0f} | {worst['load'] / 2**20:.0f} | {load:.2f} | {worst['load'] / size:.2f} "
                f"| {write:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
