"""Runs some cells of a certificate again, and compares what is found with what was stated."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from immunax.attacks.merge import Merge
from immunax.certificate.verify import Check, tables
from immunax.conditions.records import JUDGED, OWN_TEMPLATE, REFERENCE, SPECIAL, SUBJECT, Table
from immunax.judges.evaluate import Evaluation
from immunax.models.hub import ModelSource
from immunax.models.model import Params
from immunax.runtime import digest
from immunax.runtime.admission import admit
from immunax.runtime.errors import UserError
from immunax.stages.bench import bench
from immunax.stages.cells import Cell, Measured, groups
from immunax.stages.certify import Weights, with_undefended
from immunax.stages.guard import Start
from immunax.stages.measure import measure
from immunax.stages.setup import Parts, Setup, set_up
from immunax.stages.subject import Asked, Subject, reference, subject, undefended
from immunax.stages.suite import Suite

_CONFIG = "the certificate's configuration"

FLIPPED = 0.1
"""Share of a cell's judged answers that may differ: another processor rounds otherwise, and greedy decoding takes other turns."""

MOVED = 0.05
"""How far, relative to itself, a cell's mean negative log likelihood may move."""


def replay(
    folder: Path, stated: Mapping[str, Any], count: int, model: Path | None, other: Path | None = None
) -> list[Check]:
    """Runs cells chosen at random, of the certified model and, where its files are given, of the reference.

    Args:
      folder: of the certificate.
      stated: the statement.
      count: how many; all attacked cells where there are fewer.
      model: folder of the certified model's files; None where the configuration makes it anew.
      other: files of the reference, or None.

    Returns:
      A check a cell, and one for everything that could not be replayed.

    Raises:
      UserError: a model or the data cannot be loaded.
    """
    config = stated["predicate"]["suite"]["config"]
    suite = admit(config.get("suite"), Suite, f"{_CONFIG} (suite)")
    evaluation = admit(config.get("judge"), Evaluation, f"{_CONFIG} (judge)")
    asked = _asked(config, stated, model)
    setup, loaded = set_up(asked.parts)
    certified = subject(asked, setup, loaded)
    models, found = {SUBJECT: certified.params}, []
    if other is not None:
        params = _reference(asked, stated, certified, setup, other)
        if params is None:
            return [Check("replay of the reference", "failed", f"{other} is not the model that it was compared with")]
        models[REFERENCE] = params
    elif stated["predicate"]["reference"] is not None:
        found.append(Check("replay of the reference", "not checked", "give --reference PATH with its files"))
    base = undefended(asked, certified, setup, loaded)
    suite = with_undefended(suite, None if base is None else Weights(base, digest.of_tree(base)))
    shared = bench(suite, evaluation, setup.checkpoint.tokenizer, setup.splits, stated["predicate"]["seed"])
    known, states = tables(folder)
    skipped = {each["family"] for each in stated["predicate"]["attacks"] if each["skipped"]}
    spoken = stated["predicate"]["templates"], stated["predicate"]["speech"]["model"]
    if (list(shared.templates), dict(certified.speech)) != spoken:
        return [Check("replay", "failed", "tokenizer and templates of the certificate are not those of the model")]
    mute = {each["family"] for each in stated["predicate"]["attacks"] if each["unmeasured"]}
    planned = [
        cell
        for role in models
        for cell in _attacked(suite, role, shared.templates)
        if cell.family not in skipped and not (cell.template == OWN_TEMPLATE and cell.family in mute)
    ]
    attacked = states[states["model"].isin(list(models)) & ~states["family"].isin(SPECIAL)]
    if {cell.name for cell in planned} != set(attacked["cell"]):
        return [Check("replay", "failed", "the cells of the certificate are not those of its suite")]
    able = [cell for cell in planned if not (isinstance(cell.attack, Merge) and cell.attack.source is None)]
    if len(able) < len(planned):
        found.append(Check("replay of merge", "not checked", "the model before its guard is not known here"))
    for cell in secrets.SystemRandom().sample(able, min(count, len(able))):
        found.append(_compared(cell, known, measure(shared, setup.model, models[cell.model], [cell])[0]))
    return found


def _asked(config: Mapping[str, Any], stated: Mapping[str, Any], model: Path | None) -> Asked:
    """The models to replay: the configuration's, from the verifier's own files where he gives some."""
    parts, start = Parts.admitted(config, _CONFIG), admit(config.get("start"), Start, f"{_CONFIG} (start)")
    of_files = getattr(parts.model, "path", None) == stated["predicate"]["model"]["name"]
    if model is None:
        if of_files:
            raise UserError("--replay: the certificate is of files; give --model FOLDER with them.")
        return Asked(parts, start)
    source = replace(parts.model, path=str(model)) if isinstance(parts.model, ModelSource) else ModelSource(str(model))
    return Asked(replace(parts, model=source), start)


def _reference(asked: Asked, stated: Mapping[str, Any], certified: Subject, setup: Setup, path: Path) -> Params | None:
    """The reference's weights from files; None where they are not those that the statement lists."""
    said = stated["predicate"]["reference"]
    if said is None:
        raise UserError("--reference: the certificate has none; leave it out.")
    found = reference(replace(asked, reference=ModelSource(str(path))), certified, setup)
    if found is None:
        return None
    # A start model that a run made for itself has no files of its own to be listed by.
    made = {"weights": digest.of_tree(found.params)}
    return found.params if said["digests"] in (made, dict(found.digests)) else None


def _attacked(suite: Suite, model: str, templates: Sequence[str]) -> list[Cell]:
    """The attacked cells of one model."""
    return [cell for group in groups(suite, model, templates) for cell in group if cell.family not in SPECIAL]


def _compared(cell: Cell, known: Table, found: Measured) -> Check:
    stated = known[known["cell"] == cell.name]
    names = ["step", "split", "measure", "unit"]
    both = stated.merge(found.records, on=names, how="outer", suffixes=("", "_anew"), indicator=True)
    name = f"replay {cell.name}"
    if not len(both) or not (both["_merge"] == "both").all():
        return Check(name, "failed", "other examples were measured than the certificate has")
    judged = both[both["measure"].str.startswith(JUDGED)]
    flipped = float((judged["value"].round() != judged["value_anew"].round()).mean()) if len(judged) else 0.0
    sums = both[both["measure"].str.endswith("_nll")].groupby("measure")[["value", "value_anew"]].sum()
    moved = (
        float(((sums["value_anew"] - sums["value"]).abs() / sums["value"].clip(lower=1.0)).max()) if len(sums) else 0.0
    )
    detail = f"{flipped:.1%} of judged answers differ, likelihoods move by {moved:.2%}"
    within = flipped <= FLIPPED and moved <= MOVED
    return Check(name, "passed" if within else "failed", f"{detail} (allowed: {FLIPPED:.0%}, {MOVED:.0%})")
