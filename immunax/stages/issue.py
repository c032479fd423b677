"""Writes a certificate: the records, the statement, its signature, and the pages that people read."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immunax.certificate import bundle, pages, signing
from immunax.certificate.facts import limits_of, named_by
from immunax.certificate.reproduce import reproduce
from immunax.certificate.statement import FILE, canonical, parse, statement, verdicts_to_json
from immunax.certificate.verify import CELLS, RECORDS, tables
from immunax.conditions import records
from immunax.conditions.assess import assess
from immunax.conditions.exposure import Exposure
from immunax.conditions.policy import Policy
from immunax.judges.evaluate import Evaluation
from immunax.runtime import atomic, digest, manifest, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.places import without_places
from immunax.runtime.user_config import UserConfig
from immunax.stages.certify import Campaign
from immunax.stages.explicit import explicit
from immunax.stages.subject import Subject


class Keys(NamedTuple):
    """What a certificate is signed with.

    Attributes:
      statement: its own key, or None.
      bundle: PEM file of the key for the model's files, or None.
    """

    statement: Ed25519PrivateKey | None
    bundle: Path | None


def keys(config: UserConfig, certified: Subject) -> Keys:
    """The keys that a configuration names, read before anything takes long.

    Args:
      config: composed.
      certified: the model.

    Raises:
      UserError: one cannot be read, or there are no files for the bundle to sign.
    """
    own = None if config.key is None else signing.private_key(Path(config.key).expanduser())
    if config.bundle_key is None:
        return Keys(own, None)
    if certified.folder is None:
        raise UserError(
            "bundle_key: the model comes from no folder of files; give model=FOLDER, or leave the bundle out."
        )
    path = Path(config.bundle_key).expanduser()
    bundle.check_key(path)
    return Keys(own, path)


def issue(
    folder: Path,
    config: UserConfig,
    campaign: Campaign,
    certified: Subject,
    reference: Subject | None,
    undefended: str | None,
    exposure: Mapping[str, Exposure],
    policy: Policy,
    evaluation: Evaluation,
    data: Mapping[str, Any],
    signed_by: Keys,
) -> dict[str, Any]:
    """Writes everything into the run's folder; the same campaign gives the same bytes, but for the bundle.

    Args:
      folder: of the run, with its manifest.
      config: composed.
      campaign: what the attacks left.
      certified, reference: the models.
      undefended: SHA-256 of the weights before the model's guard, where they are known.
      exposure: by family of the suite.
      policy: thresholds.
      evaluation: judges.
      data: ``digests`` of the data, and whose the ``attacker``'s are.
      signed_by: from :func:`keys`.

    Returns:
      The statement.

    Raises:
      UserError: the disk is full.
    """
    measured = {RECORDS: campaign.measured.records, CELLS: campaign.measured.cells}
    for name, table in measured.items():
        records.write(folder / name, table)
    verdicts = assess(*campaign.measured, policy, exposure)
    about = manifest.read(folder)
    told = _portable(explicit(config.plain, config.build("suite"), evaluation), certified, reference)
    speech = {"model": dict(certified.speech), "reference": reference and dict(reference.speech)}
    predicate = {
        "started": about["started"],
        "model": {
            "name": certified.name,
            "weights": certified.weights,
            "parameters": certified.parameters(),
            "trained": _trained(certified),
        },
        "reference": reference and _compared(reference, told),
        "undefended": undefended,
        "suite": {"name": config.suite.name, "config": told},
        "policy": asdict(policy),
        "seed": config.seed,
        "attacks": _attacks(campaign, exposure),
        "judges": [{"called": name, **judge.card.as_json()} for name, judge in evaluation.judges.items()],
        "data": dict(data),
        "records": [
            {"name": name, "rows": len(table), "digest": {"sha256": digest.of_file(folder / name)}}
            for name, table in measured.items()
        ],
        "environment": {name: about[name] for name in ("versions", "git", "platform")},
        "verdicts": verdicts_to_json(verdicts),
        "templates": list(campaign.templates),
        "speech": speech,
        "reproduce": reproduce(told),
    }
    predicate["limits"] = limits_of(predicate, policy, verdicts)
    stated = statement(certified.digests, predicate)
    raw = canonical(stated)
    _write(folder / FILE, raw)
    if signed_by.statement is None:
        mirror.remove(folder / signing.FILE)
    else:
        _write(folder / signing.FILE, signing.sign(raw, signed_by.statement))
    if signed_by.bundle is not None and certified.folder is not None:
        bundle.sign_folder(mirror.fetch(certified.folder), signed_by.bundle, folder / bundle.FILE)
    # As whoever verifies them draws them: from what was written.
    _, written = parse(folder / FILE)
    for name, page in pages.drawn(written, *tables(folder)).items():
        _write(folder / name, page)
    return stated


def _attacks(campaign: Campaign, exposure: Mapping[str, Exposure]) -> list[dict[str, Any]]:
    cells = campaign.measured.cells.drop_duplicates("cell")
    counts = cells[cells["model"] == records.SUBJECT]["family"].value_counts()
    return [
        {
            "family": family,
            "exposure": each.trained,
            "held_out": each.held_out,
            "cells": int(counts.get(family, 0)),
            "skipped": campaign.skipped.get(family),
            "unmeasured": campaign.unmeasured.get(family),
        }
        for family, each in exposure.items()
    ]


def _compared(reference: Subject, told: Mapping[str, Any]) -> dict[str, Any]:
    """The reference, and who named it."""
    return {
        "name": reference.name,
        "named_by": named_by(told),
        "weights": reference.weights,
        "digests": dict(reference.digests),
    }


def _trained(certified: Subject) -> dict[str, Any] | None:
    if certified.record is None:
        return None
    name = str(certified.record["config"]["defense"]["_target_"]).rpartition(".")[2]
    return {"defense": name, "against": certified.record.get("trained_against")}


def _portable(config: Mapping[str, Any], certified: Subject, reference: Subject | None) -> dict[str, Any]:
    """The configuration without paths of the machine it ran on, which mean nothing elsewhere and tell of it."""
    changed = deepcopy(dict(config))
    if certified.folder is not None:
        changed["model"]["path"] = certified.name
    if reference is not None and "reference" in changed:
        changed["reference"]["path"] = reference.name
    if changed.get("compute"):
        changed["compute"]["peak"] = None
    for model in (changed["model"], changed.get("reference") or {}):
        if model.get("chat_template"):
            model["chat_template"] = Path(model["chat_template"]).name
    return without_places({**changed, "outputs": None, "key": None, "bundle_key": None, "trace": None})


def _write(path: Path, raw: bytes) -> None:
    with atomic.file(path) as temp:
        temp.write_bytes(raw)
