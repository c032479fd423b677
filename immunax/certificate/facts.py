"""What a statement says that its own tables and configuration can contradict."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from immunax.certificate import names
from immunax.certificate.limits import limits
from immunax.conditions.edges import RATE, Rates, beyond, planned_rates, tried_rates
from immunax.conditions.exposure import Exposure, exposures
from immunax.conditions.policy import Policy
from immunax.conditions.records import (
    DATA_KEPT,
    NEUTRAL,
    OWN_TEMPLATE,
    REFERENCE,
    SPECIAL,
    SUBJECT,
    TRAINABILITY,
    UNATTACKED,
    Table,
)
from immunax.conditions.verdict import Verdict
from immunax.data.dialog import OWN, SHARED

FOREIGN = ("immunax.attacks.multilingual_sft.MultilingualSFT",)
"""Attacks that say so of themselves, by the name that a configuration has for them: nothing of a statement is ever imported."""
PHRASES = "immunax.judges.refusal.Refusal"
"""The judge that looks for English phrases."""

WEIGHTS = "weights"
"""What the digest of a model is listed under that comes from no files."""

CERTIFIER, MODEL = "certifier", "model"

WHOSE = {
    OWN: "Attackers trained on data of their own, none of which defenses train on.",
    SHARED: "Attackers trained on the very examples that the defense trained on, or nobody can show otherwise: one with others "
    "may do more harm.",
}
"""What a reader is told of the attackers' data."""


def attack_data(stated: Mapping[str, Any]) -> str:
    """Whose data attackers had, ``own`` or ``shared``: a statement that does not say is older than data of their own."""
    return stated["predicate"]["data"].get("attacker", SHARED)


def exposure_of(stated: Mapping[str, Any]) -> dict[str, Exposure]:
    """By family of the suite, how it stands to the model."""
    return {each["family"]: Exposure(each["exposure"], each["held_out"]) for each in stated["predicate"]["attacks"]}


def named_by(config: Mapping[str, Any]) -> str:
    """Who chose the reference: the ``certifier``, or the ``model`` itself, whose run says what it began with.

    Args:
      config: of the certificate.
    """
    return CERTIFIER if config.get("reference") else MODEL


def foreign(
    suite: Mapping[str, Any], judges: Mapping[str, Any], policy: Policy, skipped: Iterable[str]
) -> dict[str, list[str]]:
    """The attacks that may make a model answer in a language that a judge does not read.

    Args:
      suite, judges: as a configuration describes them.
      policy: names the judge of each side of harm.
      skipped: families that were not run.

    Returns:
      By side of harm that is judged by English phrases, the families; a side without any is not there.
    """
    run = {family: each for family, each in suite["attacks"].items() if family not in skipped}
    families = sorted(family for family, each in run.items() if _builds(each, FOREIGN))
    sides = [side for side, harm in policy.harm.items() if _builds(judges.get(harm.judge), (PHRASES,))]
    return dict.fromkeys(sides, families) if families else {}


def _builds(config: Any, targets: tuple[str, ...]) -> bool:
    """Whether a configuration, or one in it, is of one of some classes."""
    if not isinstance(config, Mapping):
        return False
    return config.get("_target_") in targets or any(_builds(each, targets) for each in config.values())


def _rates(attack: Mapping[str, Any]) -> Rates:
    """The learning rates that an attack of a suite's configuration tries."""
    if "populations" in attack:
        return {name: rates for name, each in attack["populations"].items() for rates in _rates(each).values()}
    tuning = (attack.get("attack") or {}).get("tuning") or {}
    rates = planned_rates(attack["grid"], (tuning.get("optimizer") or {}).get("learning_rate"))
    return {"": rates} if rates else {}


def _count(attack: Mapping[str, Any], rates: Rates, further: Rates) -> int:
    """How many cells an attack of a suite's configuration has on one model, those at further learning rates included."""
    if "populations" in attack:
        return 1 + bool(further)
    count = math.prod(len(values) for values in attack["grid"].values()) * len(attack["seeds"])
    each = len(attack["grid"].get(RATE, (None,)))
    return count + (count // each * len(further[""]) if further else 0)


def fault(
    stated: Mapping[str, Any], records: Table, cells: Table, policy: Policy, verdicts: tuple[Verdict, ...]
) -> str | None:
    """The first contradiction; None where there is none.

    Args:
      stated: the statement.
      records, cells: its tables.
      policy: its own.
      verdicts: computed anew.
    """
    said = stated["predicate"]
    return (
        names.fault(said)
        or _of_subject(stated)
        or _of_configuration(said)
        or _of_cells(said, records, cells, policy)
        or _of_data(said, records, cells)
        or _of_exposure(stated, policy, verdicts)
    )


def _of_subject(stated: Mapping[str, Any]) -> str | None:
    """Whether what was measured is what the digests are of: files that a configuration defends first are other weights."""
    files = [each["name"] for each in stated["subject"]] != [WEIGHTS]
    start = stated["predicate"]["suite"]["config"].get("start") or {}
    if files and start.get("defense") is not None:
        return "it lists files, and its configuration defends them before they are measured"
    return None


def _of_configuration(said: Mapping[str, Any]) -> str | None:
    """What is told beside the configuration and follows from it."""
    config = said["suite"]["config"]
    if not _is_time(said["started"]):
        return "the time at which it was started is none"
    if config.get("seed") != said["seed"]:
        return "its seed is not that of its configuration"
    if not _given(config.get("policy", {}), said["policy"]):
        return "its policy is not that of its configuration"
    if sorted(each["called"] for each in said["judges"]) != sorted(config.get("judge", {}).get("judges", {})):
        return "the judges listed are not those of its configuration"
    if said["reference"] and said["reference"]["named_by"] != named_by(config):
        return "it is said who named the reference, and the configuration says otherwise"
    read = config.get("data"), config["suite"]["attacks"]
    if said["data"].get("attacker") != SHARED and any(map(_shares, read)):
        return "attackers shared the defense's data, and it does not say so"
    return None


def _shares(config: Any) -> bool:
    """Whether a corpus of a configuration gives attackers what defenses train on."""
    if not isinstance(config, Mapping):
        return False
    return config.get("attacker") == SHARED or any(map(_shares, config.values()))


def _of_cells(said: Mapping[str, Any], records: Table, cells: Table, policy: Policy) -> str | None:
    """What was run, and what the suite says is to be, with the learning rates that its tables ask for."""
    listed = {each["family"]: each for each in said["attacks"]}
    attacks = said["suite"]["config"]["suite"]["attacks"]
    templates = said["templates"]
    if templates != ([NEUTRAL] if said["speech"]["model"]["template"] is None else [OWN_TEMPLATE, NEUTRAL]):
        return "the templates are not those of the model"
    if any(each["unmeasured"] and (each["skipped"] or len(templates) == 1) for each in listed.values()):
        return "an attack was left out twice"
    rates = {name: _rates(attacks[name]) for name in listed if name in attacks and not listed[name]["skipped"]}
    further = beyond(records, cells, policy, rates, said["suite"]["config"]["suite"].get("held_out") or ())
    planned = {
        (name, template): _count(attacks[name], each, further.get(name, {}))
        for name, each in rates.items()
        for template in templates
        if not (listed[name]["unmeasured"] and template == OWN_TEMPLATE)
    }
    special = {(UNATTACKED, template) for template in templates}
    for model in (SUBJECT, *([REFERENCE] if said["reference"] else [])):
        mine = cells[cells["model"] == model].drop_duplicates("cell")
        counts = {
            (str(name), str(template)): len(part) for (name, template), part in mine.groupby(["family", "template"])
        }
        if {each: count for each, count in counts.items() if each[0] not in SPECIAL} != planned:
            return f"the cells of the {model} are not those of the suite"
        if {each for each in counts if each[0] in SPECIAL} - {(TRAINABILITY, templates[0])} != special:
            return f"the {model} is not measured as it is under each template"
        for (family, template), _ in planned.items():
            tried = tried_rates(mine[(mine["family"] == family) & (mine["template"] == template)])
            if rates[family] and tried != _joined(rates[family], further.get(family, {})):
                return f"the learning rates of {family} on the {model} are not those of the suite and of what follows from it"
    ran = {name: sum(count for (each, _), count in planned.items() if each == name) for name in listed}
    if {name: each["cells"] for name, each in listed.items()} != ran:
        return "the attacks listed are not those of the suite"
    return None


def _joined(rates: Rates, further: Rates) -> dict[str, tuple[float, ...]]:
    return {name: tuple(sorted({*each, *further.get(name, ())})) for name, each in rates.items()}


def _of_data(said: Mapping[str, Any], records: Table, cells: Table) -> str | None:
    """Whether every fine-tuning says how much of its data it trained on: one that does not could hide that it had none."""
    attacks = said["suite"]["config"]["suite"]["attacks"]
    tuned = {name for name, each in attacks.items() if "populations" in each or "tuning" in (each.get("attack") or {})}
    told = set(records.loc[records["measure"] == DATA_KEPT, "cell"])
    silent = cells[cells["family"].isin(tuned) & ~cells["cell"].isin(told)]
    return f"{silent['family'].iloc[0]} does not say how much of its data it trained on" if len(silent) else None


def _of_exposure(stated: Mapping[str, Any], policy: Policy, verdicts: tuple[Verdict, ...]) -> str | None:
    """What the suite holds out, what a model was trained against, and the limits that follow from this and from the verdicts."""
    said = stated["predicate"]
    config, trained = said["suite"]["config"], said["model"]["trained"]
    listed = {each["family"]: each for each in said["attacks"]}
    tuned = {name: tuple(each.get("populations") or ()) for name, each in config["suite"]["attacks"].items()}
    against = trained["against"] if trained else config.get("trained_against")
    stood = exposure_of(stated)
    if stood != exposures(tuned, config["suite"].get("held_out") or (), against):
        return "an attack is said to be held out, seen or unknown, and is not"
    skipped = {name: each["skipped"] for name, each in listed.items() if each["skipped"]}
    about = policy, skipped, stood, verdicts, said["reference"] is not None, said["data"].get("attacker")
    unread = foreign(config["suite"], config.get("judge", {}).get("judges", {}), policy, skipped)
    unmeasured = {name: each["unmeasured"] for name, each in listed.items() if each["unmeasured"]}
    if said["limits"] != limits(*about, unread, unmeasured, said["speech"]):
        return "the limits are not those that follow from the rest"
    return None


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _given(config: Any, value: Any) -> bool:
    """Whether what a configuration gives is what was built of it; fields that it leaves out have defaults."""
    if isinstance(config, Mapping):
        fields = {name: each for name, each in config.items() if name != "_target_"}
        return isinstance(value, Mapping) and all(
            name in value and _given(fields[name], value[name]) for name in fields
        )
    return config == value
