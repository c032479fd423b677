"""Runs some cells of a certificate again, and compares what is found with what was stated."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from immunax.attacks.merge import Merge
from immunax.certificate.trust import check_config
from immunax.certificate.verify import Check, tables
from immunax.conditions.records import JUDGED, SPECIAL, SUBJECT, Table
from immunax.runtime import digest
from immunax.runtime.errors import UserError
from immunax.stages.cells import Cell, Measured, groups
from immunax.stages.certify import Weights, with_undefended
from immunax.stages.measure import bench, measure
from immunax.stages.setup import build, set_up
from immunax.stages.subject import subject, undefended
from immunax.stages.suite import Suite

FLIPPED = 0.1
"""Share of a cell's judged answers that may differ: another processor rounds otherwise, and greedy decoding takes other turns."""

MOVED = 0.05
"""How far, relative to itself, a cell's mean negative log likelihood may move."""


def replay(folder: Path, stated: Mapping[str, Any], count: int, model: Path | None) -> list[Check]:
    """Runs cells chosen at random.

    Args:
      folder: of the certificate.
      stated: the statement.
      count: how many; all attacked cells of the certified model where there are fewer.
      model: folder of its files; None where the configuration makes it anew.

    Returns:
      A check a cell.

    Raises:
      UserError: the model or the data cannot be loaded.
    """
    check_config(stated["predicate"]["suite"]["config"])
    config = cast(DictConfig, OmegaConf.create(stated["predicate"]["suite"]["config"]))
    if model is not None:
        config.model.path = str(model)
    elif config.model.get("path") == stated["predicate"]["model"]["name"]:
        raise UserError("--replay: the certificate is of files; give --model FOLDER with them.")
    setup, loaded = set_up(config)
    certified = subject(config, setup, loaded)
    suite = build(config.suite)
    shared = bench(suite, build(config.judge), setup.checkpoint.tokenizer, setup.splits, config.seed)
    known, states = tables(folder)
    planned = _planned(suite)
    attacked = states[(states["model"] == SUBJECT) & ~states["family"].isin(SPECIAL)]
    skipped = {each["family"] for each in stated["predicate"]["attacks"] if each["skipped"]}
    expected = {cell.name for cell in planned if cell.family not in skipped}
    if expected != set(attacked["cell"]):
        return [Check("replay", "failed", "the cells of the certificate are not those of its suite")]
    planned = [cell for cell in planned if cell.name in expected]
    names = {cell.name for cell in secrets.SystemRandom().sample(planned, min(count, len(planned)))}
    if any(isinstance(cell.attack, Merge) for cell in planned if cell.name in names):
        base = undefended(config, certified, loaded)
        planned = _planned(suite if base is None else with_undefended(suite, Weights(base, digest.of_tree(base))))
    chosen = [cell for cell in planned if cell.name in names]
    found = [_compared(cell, known, measure(shared, setup.model, certified.params, [cell])[0]) for cell in chosen]
    return [*found, Check("replay of the reference", "not checked", "cells of the certified model are replayed alone")]


def _planned(suite: Suite) -> list[Cell]:
    """The attacked cells of the certified model."""
    return [cell for group in groups(suite, SUBJECT) for cell in group if cell.family not in SPECIAL]


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
