"""``python -m immunax.compile mesh=v5e_256 +defense=NAME`` or ``+recipe=NAME``: does the train step fit a slice of TPUs?"""

import json
import sys

from immunax.data.packing import total
from immunax.pod import report as pod_report
from immunax.pod.abstract_step import abstract_batch, abstract_state
from immunax.pod.advice import advise
from immunax.pod.chips import chip_of, compile_only_devices
from immunax.pod.fit import compile_step
from immunax.pod.real_tokens import largest
from immunax.runtime import atomic, console, manifest, mesh
from immunax.runtime.errors import UserError
from immunax.runtime.job import run_directory
from immunax.runtime.launch import command
from immunax.runtime.user_config import UserConfig
from immunax.stages import recipe
from immunax.stages.defender import defender
from immunax.stages.kept import LOW, help_with_rows, real_tokens
from immunax.stages.setup import check_context

EXIT_NOT_FIT = 3
"""Exit status of a step that does not fit."""

FILE = "compile.json"


@command("compile", required=("defense",))
def main(config: UserConfig) -> None:
    """Compiles for a topology with no TPU present, prints one table, and leaves its numbers in the run's folder."""
    folder, started, config = run_directory(), manifest.now(), recipe.applied(config)
    spec = config.build("mesh")
    if spec.topology is None:
        raise UserError(
            "mesh.topology is null: choose a mesh of TPUs, as mesh=v5e_256, or set mesh.topology=v5e:16x16."
        )
    chip, devices = chip_of(spec.topology), mesh.build(spec, compile_only_devices(spec.topology))
    model = config.build("compute").model(config.build("model").shape(), "tpu")
    defense, training = defender(config), config.build("trainer")
    check_context(model, {"trainer.max_length": training.max_length})
    with console.phase(f"compile for {spec.topology}"):
        fit = compile_step(model, defense, training, devices, chip)
    ways = mesh.data_ways(devices)
    rows = largest(defense.mixture, ways)
    record = pod_report.to_json(fit, chip, devices, rows)
    pod_report.show(folder.name, fit, chip, devices, rows)
    if total(rows.values()).share < LOW:
        console.note(
            real_tokens(f"a step on {devices.size} devices, at most", rows, help_with_rows(defense.mixture, ways))
        )
    if not fit.fits:
        batch = abstract_batch(defense.mixture, training, devices)
        state = abstract_state(model, defense, training, batch, devices)
        savings = advise(model, defense, training, state, batch, devices)
        record["advice"] = [saving._asdict() for saving in savings]
        shown = "; then ".join(f"{each.option} (about {each.bytes / 2**30:.2g} GiB a device)" for each in savings)
        console.note(f"does not fit: {fit.refusal}")
        console.note(f"what would help most: {shown}")
    with atomic.file(folder / FILE) as temp:
        temp.write_text(json.dumps(record, indent=2) + "\n")
    manifest.write_manifest(folder, config.plain, {}, {"started": started, "results": record, "ended": manifest.now()})
    if not fit.fits:
        sys.exit(EXIT_NOT_FIT)


if __name__ == "__main__":
    main()
