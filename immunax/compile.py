"""``python -m immunax.compile mesh=v5e_256 +defense=NAME|+attack=NAME|suite=NAME|+recipe=NAME``: does it fit slices of TPUs?"""

import json
import sys
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.data.packing import total
from immunax.models.model import Model
from immunax.outer.row_share import largest
from immunax.pod import report as pod_report
from immunax.pod.abstract_step import abstract_batch, abstract_state
from immunax.pod.advice import advise
from immunax.pod.chips import Chip, chip_of, compile_only_devices
from immunax.pod.fit import compile_step, step_seconds
from immunax.pod.population_fit import PopulationFit, compile_attacks, compile_search
from immunax.pod.sharing import Sharing, whole
from immunax.runtime import atomic, console, manifest, mesh
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError
from immunax.runtime.job import run_directory
from immunax.runtime.launch import command
from immunax.runtime.mesh import MeshSpec
from immunax.runtime.parts import Part
from immunax.runtime.untrusted.files import read_bytes
from immunax.runtime.untrusted.values import parse_yaml
from immunax.runtime.user_config import UserConfig
from immunax.stages import recipe
from immunax.stages.defender import defender
from immunax.stages.kept import LOW, help_with_rows, real_tokens
from immunax.stages.setup import check_context

EXIT_NOT_FIT = 3
"""Exit status of a step that does not fit."""

FILE = "compile.json"


@command("compile", required=("defense|attack|suite",))
def main(config: UserConfig) -> None:
    """Compiles for a topology with no TPU present, prints a table a program, and leaves its numbers in the run's folder."""
    folder, started, config = run_directory(), manifest.now(), recipe.applied(config)
    spec = config.build("mesh")
    if config.trace is not None:
        raise UserError(
            f"trace={config.trace}: nothing runs here that could be recorded; give it to train, attack or certify."
        )
    if spec.topology is None:
        raise UserError(
            "mesh.topology is null: choose a mesh of TPUs, as mesh=v5e_256, or set mesh.topology=v5e:16x16."
        )
    _check_one(config)
    chip = chip_of(spec.topology)
    devices = mesh.build(spec, compile_only_devices(spec.topology, spec.slices or 1))
    model = config.build("compute").model(config.build("model").shape(), "tpu")
    asked = _step if "defense" in config else _populations

    def fitted(devices: Mesh, topology: str, title: str) -> dict[str, Any]:
        return asked(config, model, devices, chip, topology, title)

    record = fitted(devices, spec.topology, folder.name)
    if spec.part is not None and record["fits"]:
        record["sharing"] = _shared(spec, record, fitted, folder.name)
    with atomic.file(folder / FILE) as temp:
        temp.write_text(json.dumps(record, indent=2) + "\n")
    manifest.write_manifest(folder, config.plain, {}, {"started": started, "results": record, "ended": manifest.now()})
    if not record["fits"]:
        sys.exit(EXIT_NOT_FIT)


def _shared(spec: MeshSpec, record: dict[str, Any], fitted: Callable[..., dict[str, Any]], run: str) -> dict[str, Any]:
    """What runs on parts of a slice come to, beside one after another on all of it; said in a line."""
    part, wide, topology = Part.read(spec.part), [record], str(spec.topology)
    if part.count > 1:
        meshes = whole(spec, part, _shipped())
        topology = str(meshes[0].topology)
        laid = (mesh.build(each, compile_only_devices(topology)) for each in meshes)
        wide = [fitted(devices, topology, f"{run} on all of {topology}") for devices in laid]
    fastest = min(wide, key=lambda each: (not each["fits"], each["run_seconds"]))
    in_turn = part.count * fastest["run_seconds"] if fastest["fits"] else None
    sharing = Sharing(part.count, record["run_seconds"], in_turn)
    console.note(sharing.told())
    return sharing._asdict() | {"topology": topology, "whole": fastest}


def _shipped() -> list[MeshSpec]:
    files = sorted((configuration_folder() / "mesh").glob("*.yaml"))
    found = [parse_yaml(read_bytes(file), str(file)) for file in files]
    return [MeshSpec(**{name: each[name] for name in each if name != "_target_"}) for each in found]


def _check_one(config: UserConfig) -> None:
    found = [name for name in ("defense", "attack", "suite") if config.get(name) is not None]
    if len(found) > 1:
        raise UserError(f"{' and '.join(found)}: one program is compiled at a time; leave one of them out.")
    if "defense" in found and config.members is not None:
        raise UserError("members: a defense has none; leave it out, or name an attack.")


def _step(config: UserConfig, model: Model, devices: Mesh, chip: Chip, topology: str, title: str) -> dict[str, Any]:
    """A train step."""
    defense, training = defender(config), config.build("trainer")
    check_context(model, {"trainer.max_length": training.max_length})
    with console.phase(f"compile for {topology}"):
        fit = compile_step(model, defense, training, devices, chip)
    ways = mesh.data_ways(devices)
    rows = largest(defense.mixture, ways)
    record = pod_report.to_json(fit, chip, devices, rows)
    pod_report.show(title, fit, chip, devices, rows)
    if total(rows.values()).share < LOW:
        console.note(
            real_tokens(f"a step on {devices.size} devices, at most", rows, help_with_rows(defense.mixture, ways))
        )
    record["run_seconds"] = training.steps * step_seconds(fit, chip, devices.size)
    if not fit.fits:
        batch = abstract_batch(defense.mixture, training, devices)
        state = abstract_state(model, defense, training, batch, devices)
        savings = advise(model, defense, training, state, batch, devices)
        record["advice"] = [saving._asdict() for saving in savings]
        shown = "; then ".join(f"{each.option} (about {each.bytes / 2**30:.2g} GiB a device)" for each in savings)
        console.note(f"does not fit: {fit.refusal}")
        console.note(f"what would help most: {shown}")
    return record


def _populations(
    config: UserConfig, model: Model, devices: Mesh, chip: Chip, topology: str, title: str
) -> dict[str, Any]:
    """The programs of an attack, a search or a suite."""
    found: dict[str, list[PopulationFit]] = {}
    for name, attack in _named(config):
        with console.phase(f"compile {name} for {topology}"):
            found[name] = _compiled(attack, config, model, devices, chip)
    programs = [(name, each) for name, fits in found.items() for each in fits]
    if not programs:
        raise UserError("nothing here fine-tunes, and an edit is no program of steps: name an attack that does.")
    records = []
    for name, each in programs:
        whole = f"{title}: {name}, {each.together} of {each.members} members at once"
        pod_report.show(whole, each.fit, chip, devices)
        sizes = {"program": name, "members": each.members, "together": each.together, "turns": each.turns}
        records.append(sizes | {"runs": each.steps} | pod_report.to_json(each.fit, chip, devices))
    refusal = next((each.fit.refusal for _, each in programs if not each.fit.fits), None)
    if refusal is not None:
        console.note(f"does not fit: {refusal}")
        console.note(
            "what would help most: shorter examples or fewer of them (tuning.max_length, tuning.batch_size), compute.remat=full, "
            "more sharding (mesh.attack smaller, mesh.fsdp larger)"
        )
    longest = max((each for _, each in programs), key=lambda each: each.seconds(chip, devices.size))
    return {
        **pod_report.to_json(longest.fit, chip, devices),
        "fits": refusal is None,
        "refusal": refusal,
        "run_seconds": sum(each.seconds(chip, devices.size) for _, each in programs),
        "programs": records,
    }


def _named(config: UserConfig) -> list[tuple[str, Any]]:
    """Attacks by name; of a suite's, those that fine-tune."""
    if "attack" in config and config.get("attack") is not None:
        return [("attack", config.build("attack"))]
    suite = config.build("suite")
    fine_tunings = (Search, FineTuning)
    named = [(name, each.attack if isinstance(each, Population) else each) for name, each in suite.attacks.items()]
    left = [name for name, attack in named if not isinstance(attack, fine_tunings)]
    if left:
        console.note(f"edits are no programs of steps, and are left out: {', '.join(left)}")
    return [(name, suite.attacks[name]) for name, attack in named if name not in left]


def _compiled(attack: Any, config: UserConfig, model: Model, devices: Mesh, chip: Chip) -> list[PopulationFit]:
    if isinstance(attack, Search):
        if config.members is not None:
            raise UserError("members: a search's are those of its populations, attack.populations.*.grid and seeds.")
        _check_lengths(model, attack.members())
        return compile_search(attack, model, devices, chip)
    attacks = attack.members() if isinstance(attack, Population) else (attack,)
    if not all(isinstance(each, FineTuning) for each in attacks):
        raise UserError(f"attack: {type(attacks[0]).__name__} is an edit, which is no program of steps.")
    copies = config.members or 1
    if copies * len(attacks) == 1:
        mesh.for_one_model(devices)
    _check_lengths(model, attacks)
    return compile_attacks(attacks, model, devices, chip, copies)


def _check_lengths(model: Model, attacks: Any) -> None:
    check_context(model, {"tuning.max_length": max(each.tuning.max_length for each in attacks)})


if __name__ == "__main__":
    main()
