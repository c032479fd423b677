"""What a statement says that its own tables and configuration can contradict."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from immunax.certificate import measured
from immunax.certificate.limits import limits
from immunax.certificate.reproduce import reproduce
from immunax.conditions.policy import Harm, Policy, Utility
from immunax.conditions.records import REFERENCE, SPECIAL, SUBJECT, Table
from immunax.conditions.verdict import Verdict
from immunax.data.dialog import OWN, SHARED

FOREIGN = ("immunax.attacks.multilingual_sft.MultilingualSFT",)
"""Attacks that say so of themselves, by the name that a configuration has for them: nothing of a statement is ever imported."""
PHRASES = "immunax.judges.refusal.Refusal"
"""The judge that looks for English phrases."""

WEIGHTS = "weights"
"""The one subject of a certificate whose model comes from no files."""

UNKNOWN, SEEN, HELD_OUT = "unknown", "seen", "held-out"

WHOSE = {
    OWN: "Attackers trained on data of their own, none of which defenses train on.",
    SHARED: "Attackers trained on the very examples that the defense trained on, or nobody can show otherwise: one with others "
    "may do more harm.",
}
"""What a reader is told of the attackers' data."""


def attack_data(stated: Mapping[str, Any]) -> str:
    """Whose data attackers had, ``own`` or ``shared``: a statement that does not say is older than data of their own."""
    return stated["predicate"]["data"].get("attacker", SHARED)


def exposure(families: Mapping[str, tuple[str, ...]], against: Any) -> dict[str, str]:
    """Whether a model was trained against each family of attacks.

    Args:
      families: by name, the attacks that a search tunes; none for other families.
      against: families that the model was trained against; None where nobody knows.
    """
    if against is None:
        return dict.fromkeys(families, UNKNOWN)
    return {name: SEEN if {name, *tuned} & set(against) else HELD_OUT for name, tuned in families.items()}


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


def _planned(attack: Mapping[str, Any]) -> int:
    """How many cells an attack of a suite's configuration has on one model."""
    if "populations" in attack:
        return 1
    return math.prod(len(values) for values in attack["grid"].values()) * len(attack["seeds"])


def policy_from_json(value: Mapping[str, Any]) -> Policy:
    """The policy that a statement carries.

    Raises:
      UserError: a threshold is out of range.
    """
    harm = {side: Harm(**each) for side, each in value["harm"].items()}
    return Policy(**{**value, "harm": harm, "utility": Utility(**value["utility"])})


def policy_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The policy that a certificate of a configuration carries, JSON-able, with the defaults of what is left out.

    Raises:
      UserError: a threshold is out of range.
    """
    return asdict(policy_from_json(_plain(config["policy"])))


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
        _of_lists(stated)
        or _of_configuration(stated)
        or _of_cells(said, cells)
        or measured.fault(said, records, cells)
        or _of_exposure(said, policy, verdicts)
    )


def _of_lists(stated: Mapping[str, Any]) -> str | None:
    """What is listed twice says two things: a reader sees both, and a check the last one."""
    files = [each["name"] for each in stated["subject"]]
    families = [each["family"] for each in stated["predicate"]["attacks"]]
    for what, names in (("file", files), ("attack", families)):
        if len(set(names)) < len(names):
            return f"it lists one {what} twice"
    return None if files == sorted(files) else "its files are not listed by name"


def _of_configuration(stated: Mapping[str, Any]) -> str | None:
    """What is told beside the configuration and follows from it."""
    said = stated["predicate"]
    config = said["suite"]["config"]
    if not _is_time(said["started"]):
        return "the time at which it was started is none"
    if config.get("seed") != said["seed"]:
        return "its seed is not that of its configuration"
    if config["suite"].get("name") != said["suite"]["name"]:
        return "its suite has another name in its configuration"
    if policy_of(config) != said["policy"]:
        return "its policy is not that of its configuration"
    if said["reproduce"] != reproduce(config):
        return "the commands that make it again are not those of its configuration"
    if (config.get("start") or {}).get("defense") is not None and _files(stated):
        return "it is of files, and its configuration defends them before they are attacked"
    if sorted(each["called"] for each in said["judges"]) != sorted(config.get("judge", {}).get("judges", {})):
        return "the judges listed are not those of its configuration"
    read = config.get("data"), config["suite"]["attacks"]
    if said["data"].get("attacker") != SHARED and any(map(_shares, read)):
        return "attackers shared the defense's data, and it does not say so"
    return None


def _shares(config: Any) -> bool:
    """Whether a corpus of a configuration gives attackers what defenses train on."""
    if not isinstance(config, Mapping):
        return False
    return config.get("attacker") == SHARED or any(map(_shares, config.values()))


def _of_cells(said: Mapping[str, Any], cells: Table) -> str | None:
    """What was run, and what the suite says is to be."""
    listed = {each["family"]: each for each in said["attacks"]}
    attacks = said["suite"]["config"]["suite"]["attacks"]
    planned = {name: _planned(attacks[name]) for name in listed if name in attacks and not listed[name]["skipped"]}
    attacked = cells[~cells["family"].isin(SPECIAL)].drop_duplicates("cell")
    for model in (SUBJECT, *([REFERENCE] if said["reference"] else [])):
        counts = attacked[attacked["model"] == model]["family"].value_counts()
        if {str(name): int(count) for name, count in counts.items()} != planned:
            return f"the cells of the {model} are not those of the suite"
    if {name: each["cells"] for name, each in listed.items() if not each["skipped"]} != planned:
        return "the attacks listed are not those of the suite"
    if any(each["cells"] and each["skipped"] for each in listed.values()):
        return "an attack was skipped and run"
    return None


def _of_exposure(said: Mapping[str, Any], policy: Policy, verdicts: tuple[Verdict, ...]) -> str | None:
    """What a model was trained against, and the limits that follow from this and from the verdicts."""
    if {each["family"]: each["exposure"] for each in said["attacks"]} != exposed_families(said):
        return "an attack is said to be held out, seen or unknown, and is not"
    if said["limits"] != limits_of(said, policy, verdicts):
        return "the limits are not those that follow from the rest"
    return None


def exposed_families(said: Mapping[str, Any]) -> dict[str, str]:
    """By family of the configuration, whether the model was trained against it, as the predicate has to say."""
    config, trained = said["suite"]["config"], said["model"]["trained"]
    tuned = {name: tuple(each.get("populations") or ()) for name, each in config["suite"]["attacks"].items()}
    return exposure(tuned, trained["against"] if trained else config.get("trained_against"))


def limits_of(said: Mapping[str, Any], policy: Policy, verdicts: tuple[Verdict, ...]) -> list[str]:
    """The limits that a predicate has to tell."""
    config, attacks = said["suite"]["config"], said["attacks"]
    skipped = {each["family"]: each["skipped"] for each in attacks if each["skipped"]}
    stood = {each["family"]: each["exposure"] for each in attacks}
    unread = foreign(config["suite"], config.get("judge", {}).get("judges", {}), policy, skipped)
    attacker, referenced = said["data"].get("attacker"), said["reference"] is not None
    return limits(policy, skipped, stood, verdicts, referenced, attacker, unread)


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _files(stated: Mapping[str, Any]) -> bool:
    """Whether the subject is files, and not weights that a configuration makes anew."""
    return [each["name"] for each in stated["subject"]] != [WEIGHTS]


def _plain(node: Any) -> Any:
    """A configuration without the names of its classes."""
    if not isinstance(node, Mapping):
        return node
    return {name: _plain(each) for name, each in node.items() if name != "_target_"}
