"""Runs some cells of a certificate again, and compares all that is found with all that was stated."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from immunax.attacks.merge import Merge
from immunax.certificate.comparison import Cell as Rows
from immunax.certificate.comparison import Difference, Tolerance, difference, together
from immunax.certificate.inputs import Found, model_fault, reference_fault, undefended_fault
from immunax.certificate.statement import policy_from_json
from immunax.certificate.verify import Check, tables
from immunax.conditions.deciding import deciding
from immunax.conditions.edges import beyond
from immunax.conditions.policy import Policy, harmful
from immunax.conditions.records import OWN_TEMPLATE, REFERENCE, SUBJECT
from immunax.judges.evaluate import Evaluation
from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.models.speech import SHIPPED
from immunax.runtime import console, digest
from immunax.runtime.admission import admit
from immunax.runtime.errors import UserError, shown
from immunax.runtime.mesh import AXES, MeshSpec, build
from immunax.stages.bench import Bench, bench
from immunax.stages.cells import Cell, Measured, groups
from immunax.stages.certify import with_undefended
from immunax.stages.costs import fault as cost_fault
from immunax.stages.drawn import chance, drawn
from immunax.stages.guard import Start
from immunax.stages.measure import measure
from immunax.stages.planned import Weights
from immunax.stages.setup import Parts, Setup, set_up
from immunax.stages.subject import Asked, Subject, reference, subject, undefended
from immunax.stages.suite import Suite
from immunax.stages.widening import wider

_CONFIG = "the certificate's configuration"

HERE = Tolerance(served=0.05, changed=0.1, moved=0.02, together=0.02)
"""Between machines of one kind: as many threads or others, another version of the library."""
ELSEWHERE = Tolerance(served=0.075, changed=0.2, moved=0.05, together=0.03)
"""Between a processor and an accelerator."""


@dataclass(frozen=True)
class Files:
    """What a verifier has of his own.

    Attributes:
      model: folder of the certified model's files; None where the configuration makes it anew.
      reference: of the reference's, or None.
      data: folder of the data's files, where the configuration names one; or None.
      template: file of the chat template, where the configuration names one that came from a file; or None.
    """

    model: Path | None = None
    reference: Path | None = None
    data: Path | None = None
    template: Path | None = None


@dataclass(frozen=True)
class _Scene:
    """Everything that cells are measured with, and what the certificate has of them."""

    shared: Bench
    model: Model
    weights: Mapping[str, Weights]
    policies: tuple[Policy, ...]
    known: Measured
    tolerance: Tolerance


def replay(
    folder: Path,
    stated: Mapping[str, Any],
    count: int,
    files: Files,
    tolerance: Tolerance = HERE,
    gate: Policy | None = None,
    devices: Mesh | None = None,
) -> list[Check]:
    """Runs cells of the certified model and, where its files are given, of the reference.

    Those that the verdicts rest on come first, then others that nobody can foresee.

    Args:
      folder: of the certificate.
      stated: the statement.
      count: how many cells; all where there are fewer.
      files: of the verifier.
      tolerance: the verifier's: whoever made the certificate has no say in how far it may lie from the truth.
      gate: the policy of a release gate, whose verdicts rest on cells of their own.
      devices: what weights and examples are spread over; None is one device.

    Returns:
      A check a cell, one of all of them together, and one for everything that could not be replayed.

    Raises:
      UserError: a model or the data cannot be loaded.
    """
    config = stated["predicate"]["suite"]["config"]
    suite = admit(config.get("suite"), Suite, f"{_CONFIG} (suite)")
    evaluation = admit(config.get("judge"), Evaluation, f"{_CONFIG} (judge)")
    asked = _asked(config, stated, files)
    setup, loaded = set_up(asked.parts, devices)
    faults = _inputs(stated, setup, suite)
    if faults:
        return faults
    certified = subject(asked, setup, loaded)
    fault = model_fault(stated["predicate"], _found(certified))
    if fault is not None:
        return [Check("replay", "failed", fault)]
    weights, found = {SUBJECT: Weights(certified.params, certified.weights)}, []
    if files.reference is not None:
        other = _reference(asked, stated, certified, setup, files.reference)
        fault = reference_fault(stated["predicate"], _found(other))
        if fault is not None:
            return [Check("replay of the reference", "failed", f"{files.reference}: {fault}")]
        weights[REFERENCE] = Weights(other.params, other.weights)
    elif stated["predicate"]["reference"] is not None:
        found.append(Check("replay of the reference", "not checked", "give --reference PATH with its files"))
    if config.get("reference") and asked.start.defense is None:
        base = weights.get(REFERENCE)
    else:
        known = undefended(asked, certified, setup, loaded)
        fault = undefended_fault(stated["predicate"], known and known.weights)
        if fault is not None and not (known and known.anew):
            return [Check("replay of merge", "failed", fault)]
        base = None if known is None or fault is not None else Weights(known.params, known.weights)
    suite = with_undefended(suite, base)
    shared = bench(
        suite, evaluation, setup.checkpoint.tokenizer, setup.splits, stated["predicate"]["seed"], setup.devices
    )
    policies = policy_from_json(stated["predicate"]["policy"]), *([] if gate is None else [gate])
    scene = _Scene(shared, setup.model, weights, policies, Measured(*tables(folder)), tolerance)
    return [*found, *_replayed(scene, _planned(stated, scene), count)]


def mesh_of(text: str) -> Mesh:
    """The mesh of a command line.

    Args:
      text: axes and sizes, such as ``fsdp=4,tensor=2``; empty for one device.

    Raises:
      UserError: there is no such axis, or so many devices there are not.
    """
    found = {}
    for each in filter(None, text.split(",")):
        axis, _, size = each.partition("=")
        if axis not in AXES or not re.fullmatch(r"-?\d+", size):
            raise UserError(f"--mesh {text}: expected sizes of {', '.join(AXES)}, as fsdp=4,tensor=2 or fsdp=-1.")
        found[axis] = int(size)
    return build(MeshSpec(**found))


def _planned(stated: Mapping[str, Any], scene: _Scene) -> list[Cell]:
    """All cells of the models at hand that there can be: of families that were run, under templates that could be."""
    attacks, shared = stated["predicate"]["attacks"], scene.shared
    suite, templates = shared.suite, shared.templates
    skipped, mute = ({each["family"] for each in attacks if each[why]} for why in ("skipped", "unmeasured"))
    further = beyond(*scene.known, scene.policies[0], suite.rates(), suite.held_out)
    every = [
        chain(groups(suite, role, templates, tuple(shared.voices)), wider(suite, role, templates, further))
        for role in scene.weights
    ]
    return [
        cell
        for group in chain.from_iterable(every)
        for cell in group
        if cell.template in shared.voices
        and cell.family not in skipped
        and not (cell.template == OWN_TEMPLATE and cell.family in mute)
    ]


def _replayed(scene: _Scene, planned: Sequence[Cell], count: int) -> list[Check]:
    records, states = scene.known
    here = set(states[states["model"].isin(list(scene.weights))]["cell"]) & set(records["cell"])
    if {cell.name for cell in planned} != here:
        return [Check("replay", "failed", "the cells of the certificate are not those of its suite")]
    able = [cell for cell in planned if not (isinstance(cell.attack, Merge) and cell.attack.source is None)]
    found = []
    if len(able) < len(planned):
        found.append(
            Check(
                "replay of merge", "not checked", "the model before its guard is not given here, or comes out otherwise"
            )
        )
    fault = cost_fault(scene.shared, scene.model, scene.weights[SUBJECT].params, able, states)
    told = fault or "samples, steps and FLOPs of fine-tunings and edits follow from their configuration"
    found.append(Check("replay of costs", "failed" if fault else "passed", told))
    first = list(dict.fromkeys(name for policy in scene.policies for name in deciding(*scene.known, policy)))
    chosen = drawn(able, first, count)
    differences = []
    with console.progress("replay", len(chosen), "cell") as bar:
        for cell in chosen:
            differences.append(_again(scene, cell))
            found.append(_check(f"replay {cell.name}", differences[-1], scene.tolerance))
            bar.advance(1)
    found.append(_check("replay together", together(differences, scene.tolerance), scene.tolerance))
    found.append(
        Check("replay drawn", "not checked" if len(chosen) < len(able) else "passed", chance(able, first, chosen))
    )
    return found


def _again(scene: _Scene, cell: Cell) -> Difference:
    anew = measure(scene.shared, scene.model, scene.weights[cell.model].params, [cell])[0]
    stated = Measured(*(table[table["cell"] == cell.name] for table in scene.known))
    return difference(Rows(*stated), Rows(*anew), scene.tolerance, harmful(scene.policies))


def _check(name: str, found: Difference, tolerance: Tolerance) -> Check:
    allowed = f"allowed: {tolerance.served:.1%} to its advantage, {tolerance.changed:.0%}, {tolerance.moved:.0%}"
    told = found.detail if found.fault is None else f"{found.fault} ({found.detail or 'nothing else compared'})"
    return Check(name, "passed" if found.fault is None else "failed", f"{told} ({allowed})")


def _inputs(stated: Mapping[str, Any], setup: Setup, suite: Suite) -> list[Check]:
    """Whether the data here are those that it was measured with."""
    said = stated["predicate"]["data"]["digests"]
    found = {"data": setup.digests["data"]}
    if suite.lookalikes is not None:
        found["lookalikes"] = digest.of_json(asdict(suite.lookalikes.splits()))
    differ = sorted(name for name in said.keys() | found.keys() if said.get(name) != found.get(name))
    return [
        Check(f"replay of {name}", "failed", "the dialogs here are not those that it was measured with")
        for name in differ
    ]


def _asked(config: Mapping[str, Any], stated: Mapping[str, Any], files: Files) -> Asked:
    """The models to replay: the configuration's, from the verifier's own files where he gives some."""
    parts, start = Parts.admitted(config, _CONFIG), admit(config.get("start"), Start, f"{_CONFIG} (start)")
    if files.data is not None:
        if not hasattr(parts.data, "root"):
            raise UserError("--data: the certificate's data come from no files; leave it out.")
        parts = replace(parts, data=replace(parts.data, root=str(files.data)))  # pyright: ignore
    of_files = getattr(parts.model, "path", None) == stated["predicate"]["model"]["name"]
    if of_files and start.defense is not None:
        raise UserError(
            "--replay: the certificate is of files, and its configuration would defend them first: nothing that it measured is "
            "of these files."
        )
    if files.model is None:
        if of_files:
            raise UserError("--replay: the certificate is of files; give --model FOLDER with them.")
        return Asked(parts, start)
    parts = replace(parts, model=_spoken(parts.model, files.template))
    path = str(files.model)
    source = replace(parts.model, path=path) if isinstance(parts.model, ModelSource) else ModelSource(path)
    return Asked(replace(parts, model=source), start)


def _spoken(source: Any, template: Path | None) -> Any:
    """A model's source with the verifier's own file where a chat template came from one: a certificate's name is no path here."""
    chosen = getattr(source, "chat_template", None)
    if chosen is None or chosen in SHIPPED:
        if template is not None:
            raise UserError(
                "--chat-template: the certificate's model was not asked with one from a file; leave it out."
            )
        return source
    if template is not None:
        return replace(source, chat_template=str(template))
    if Path(chosen).exists() or not chosen.replace("_", "").isalnum():
        raise UserError(
            f"--replay: the model was asked with the chat template of a file, {shown(chosen)}; give --chat-template FILE."
        )
    return source


def _reference(asked: Asked, stated: Mapping[str, Any], certified: Subject, setup: Setup, path: Path) -> Subject:
    """The reference from files, which may be another one than the statement's."""
    if stated["predicate"]["reference"] is None:
        raise UserError("--reference: the certificate has none; leave it out.")
    found = reference(replace(asked, reference=ModelSource(str(path))), certified, setup)
    assert found is not None  # one that is asked for is loaded, or refused
    return found


def _found(model: Subject) -> Found:
    return Found(model.weights, model.parameters(), model.speech)
