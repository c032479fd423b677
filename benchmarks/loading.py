"""Host memory to load a bfloat16 checkpoint, beside the size of its file.

    uv run python benchmarks/loading.py [--layers 30]

The checkpoint is made on the fly: SmolLM2-135M's shape with random weights, as ``transformers`` would write it. Each way of
loading runs in a process of its own. Its memory is the peak of the resident set less what the process had before, the
libraries loaded and JAX started; on a CPU the arrays themselves are in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

WAYS = ("whole tree, then to the device", "float32", "bfloat16", "float32 on 8 devices", "bfloat16 on 8 devices")


def write_checkpoint(folder: Path, layers: int) -> None:
    """A bfloat16 folder of random weights."""
    import jax
    import numpy as np

    from immunax.models import hub
    from immunax.models.model import Model

    loaded = hub.resolve("smollm2").load()
    config = replace(loaded.config, n_layers=layers)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(Model(config).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
    made = replace(loaded, config=config, hf_config={**loaded.hf_config, "num_hidden_layers": layers})
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
    """Bytes beside the start: at the peak, and of what stays."""
    import jax

    from immunax.models.hub import ModelSource
    from immunax.runtime.mesh import MeshSpec, build

    jax.block_until_ready(jax.numpy.ones(8) + 1)
    devices = build(MeshSpec(fsdp=-1)) if "devices" in way else None
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast.from_pretrained(folder)  # warm: the tokenizer's memory is no matter of the loader
    before = resident(peak=False)
    forget_peak()
    dtype = way.split()[0]
    params = whole_tree(folder) if way == WAYS[0] else ModelSource(str(folder)).load(devices, dtype).params
    jax.block_until_ready(params)
    return {"peak": resident(peak=True) - before, "arrays": sum(leaf.nbytes for leaf in jax.tree.leaves(params))}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], Path(options.one[1]))))
        return
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "model"
        write_checkpoint(folder, options.layers)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        print(f"file: {size / 2**20:.0f} MiB\n\n| way | peak, MiB | of the file | beside the arrays, of the file |")
        print("| --- | ---: | ---: | ---: |")
        for way in WAYS:
            flags = "--xla_force_host_platform_device_count=8" if "devices" in way else ""
            env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            command = [sys.executable, __file__, "--one", way, str(folder)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)
            beside = (found["peak"] - found["arrays"]) / size
            print(f"| {way} | {found['peak'] / 2**20:.0f} | {found['peak'] / size:.2f} | {beside:.2f} |")


if __name__ == "__main__":
    main()
