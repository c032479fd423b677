"""Compiles populations of LoRA attacks for slices of TPUs, with no TPU present; see the README beside this.

    uv run --extra tpu python experiments/pod_fit/populations.py

Goes on where it was stopped: a case that ``populations.json`` holds is not compiled again.
"""

from pathlib import Path
from typing import NamedTuple

from compiled import compile_missing

RESULTS = Path(__file__).with_name("populations.json")


class Case(NamedTuple):
    """Members of a population on a mesh.

    Attributes:
      model: such as ``llama2_7b``.
      mesh: as in ``conf/mesh``, and how many such slices.
      slices: how many.
      attack, fsdp, tensor: of the mesh.
      members: A.
      batch: examples a step, of each member.
      length: tokens of each.
    """

    model: str
    mesh: str
    slices: int
    attack: int
    fsdp: int
    tensor: int
    members: int
    batch: int
    length: int

    @property
    def name(self) -> str:
        """What is recorded under."""
        return " ".join(map(str, self))

    def arguments(self) -> list[str]:
        """Of ``immunax.compile``."""
        return [
            *(f"mesh={self.mesh}", f"mesh.slices={self.slices}", f"model={self.model}", "+attack=harmful_sft_lora"),
            *(f"mesh.attack={self.attack}", f"mesh.fsdp={self.fsdp}", f"mesh.tensor={self.tensor}"),
            *(f"members={self.members}", f"attack.samples={self.batch}", f"attack.tuning.batch_size={self.batch}"),
            *(f"attack.tuning.max_length={self.length}", "compute.remat=dots"),
        ]


CASES = (
    # The axis attack from 1 to 32, four members a part.
    Case("llama2_7b", "v5e_16", 1, 1, 16, 1, 4, 16, 384),
    Case("llama2_7b", "v5e_256", 1, 16, 16, 1, 64, 16, 384),
    Case("llama2_7b", "v5e_256", 2, 32, 16, 1, 128, 16, 384),
    Case("llama2_7b", "v5e_64", 1, 4, 16, 1, 16, 16, 384),
    # More than run at once.
    Case("llama2_7b", "v5e_256", 1, 16, 16, 1, 4096, 16, 384),
    # Other layouts of 64 attacks on 256 chips, for the short batches of published attacks.
    Case("llama2_7b", "v5e_256", 1, 16, 4, 4, 64, 4, 216),
    Case("llama2_7b", "v5e_256", 1, 16, 16, 1, 64, 16, 216),
    Case("llama2_7b", "v5e_256", 1, 64, 4, 1, 64, 4, 216),
    Case("llama2_7b", "v5e_256", 1, 16, 4, 4, 64, 8, 512),
    # A model of ten times the size.
    Case("llama3_70b", "v5p_512", 1, 16, 16, 1, 64, 16, 512),
    Case("llama3_70b", "v5e_256", 1, 4, 16, 4, 16, 16, 256),
    Case("llama3_70b", "v5p_512", 1, 16, 16, 1, 4096, 16, 512),
)


def main() -> None:
    """Compiles what is missing, then writes the table."""
    results = compile_missing(RESULTS, {case.name: case.arguments() for case in CASES})
    print(table(results))


def table(results: dict) -> str:
    """The README's table, of what is recorded."""
    titles = "model | mesh | attack x fsdp x tensor | members | batch of each | at once | temporaries | peak"
    titles += " | compute | HBM | interconnect | DCN | over attack | step | MFU at most"
    lines = [f"| {titles} |", "|" + " --- |" * (titles.count("|") + 1)]
    lines += [f"| {' | '.join(_cells(case, results[case.name]))} |" for case in CASES if case.name in results]
    return "\n".join(lines)


def _cells(case: Case, found: dict) -> list[str]:
    mesh = case.mesh if case.slices == 1 else f"{case.slices} x {case.mesh}"
    (program,) = found["programs"]
    sizes = [f"{found['memory'][part] / 2**30:.2f} GiB" for part in ("temporaries", "peak")]
    seconds = found["seconds"]
    times = [f"{seconds[part]:.3g} s" for part in ("compute", "HBM", "interconnect", "DCN")]
    bound = max(range(4), key=lambda place: list(seconds.values())[place])
    times[bound] = f"**{times[bound]}**"
    sent = {**found["device_sent_by_axis"], **found["device_sent_over_dcn_by_axis"]}
    over = sum(size for axes, size in sent.items() if "attack" in axes.split("+"))
    return [
        *(case.model, mesh, f"{case.attack} x {case.fsdp} x {case.tensor}", str(case.members)),
        *(f"{case.batch} x {case.length}", str(program["together"]), *sizes, *times),
        *("none" if not over else f"{over / 2**20:.3g} MiB", f"{found['step_seconds']:.3g} s"),
        f"{100 * found['mfu']:.0f}%",
    ]


if __name__ == "__main__":
    main()
