"""Train steps with plain attention and with the TPUs' kernel, compiled with no TPU present; see the README beside this.

    uv run --extra tpu python experiments/pod_fit/attention.py

Goes on where it was stopped, as ``run.py`` does, and adds a record of its own.
"""

from itertools import product
from pathlib import Path

from compiled import compile_missing
from run import overrides

RESULTS = Path(__file__).parent / "attention.json"
DEFENSES, ATTENTION = ("rep_noise", "tar", "mlac"), ("blocks", "splash")


def arguments(defense: str, attention: str, length: int) -> list[str]:
    """Of ``immunax.compile``: 256 chips of v5e as ``run.py`` fills them, with rows of so many tokens."""
    rows = [f"trainer.max_length={length}", f"compute.attention={attention}"]
    return ["mesh=v5e_256", "model=llama2_7b", f"+defense={defense}", *overrides(defense), *rows]


def main() -> None:
    """Compiles what is missing, then writes the table."""
    cases = {
        f"{defense} {length} {attention}": arguments(defense, attention, length)
        for defense, length, attention in [
            *product(DEFENSES, (512,), ATTENTION),
            *product(("rep_noise",), (2048,), ATTENTION),
        ]
    }
    print(table(compile_missing(RESULTS, cases)))


def table(results: dict) -> str:
    """The README's table, of what is recorded."""
    lines = [
        "| defense | tokens a row | attention | temporaries | main memory | sent | compute | HBM | interconnect |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in results.items():
        seconds, sent = found["seconds"], sum(found["device_sent"].values())
        sizes = [found["memory"]["temporaries"], found["device_hbm_traffic"], sent]
        times = [f"{seconds[part]:.3g} s" for part in ("compute", "HBM", "interconnect")]
        lines.append(f"| {' | '.join([*name.split(), *(f'{size / 2**30:.2f} GiB' for size in sizes), *times])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
