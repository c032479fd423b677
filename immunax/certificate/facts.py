"""What a statement says that its own tables and configuration can contradict."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from immunax.certificate import amounts, measured, names, planned
from immunax.certificate.limits import limits
from immunax.certificate.statement import policy_from_json
from immunax.conditions.exposure import Exposure, exposures
from immunax.conditions.policy import Policy
from immunax.conditions.records import Table
from immunax.conditions.verdict import Verdict
from immunax.data.dialog import OWN, SHARED

FOREIGN = ("immunax.attacks.multilingual_sft.MultilingualSFT",)
"""Attacks that say so of themselves, by the name that a configuration has for them: nothing of a statement is ever imported."""
PHRASES = "immunax.judges.refusal.Refusal"
"""The judge that looks for English phrases."""

WEIGHTS = "weights"
"""What the digest of a model is listed under that comes from no files."""

CERTIFIER, MODEL = "certifier", "model"
SET = "set"
"""Of a chat template, or of what one is told, that is not what the model's files have."""

WHOSE = {
    OWN: "Attackers trained on data of their own, none of which defenses train on.",
    SHARED: "Attackers trained on the very examples that the defense trained on, or nobody can show otherwise: one with others "
    "may do more harm.",
}
"""What a reader is told of the attackers' data."""


def attack_data(stated: Mapping[str, Any]) -> str:
    """Whose data attackers had, ``own`` or ``shared``: a statement that does not say is older than data of their own."""
    return stated["predicate"]["data"].get("attacker", SHARED)


def template_of(stated: Mapping[str, Any]) -> str:
    """Whose the chat template is that the model was asked and attacked under: its ``own``, or one ``set`` by the certifier."""
    return SET if told_speech(stated["predicate"]["suite"]["config"]) else OWN


def told_speech(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration sets of how its model is spoken to, beyond what the model's files say."""
    model = config.get("model") or {}
    return {name: model[name] for name in ("chat_template", "template_args") if model.get(name)}


def exposure_of(stated: Mapping[str, Any]) -> dict[str, Exposure]:
    """By family of the suite, how it stands to the model."""
    return {each["family"]: Exposure(each["exposure"], each["held_out"]) for each in stated["predicate"]["attacks"]}


def named_by(config: Mapping[str, Any]) -> str:
    """Who chose the reference: the ``certifier``, or the ``model`` itself, whose run says what it began with.

    Args:
      config: of the certificate.
    """
    return CERTIFIER if config.get("reference") else MODEL


def undefended_of(said: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Whether a predicate has to say what the model was before its guard, and what that has to be where it says so elsewhere.

    Args:
      said: the predicate.
    """
    config = said["suite"]["config"]
    if (config.get("start") or {}).get("defense") is not None:
        return True, None
    if config.get("reference"):
        return True, (said["reference"] or {}).get("weights")
    return said["model"]["trained"] is not None, None


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
        names.fault(said)
        or _of_lists(stated)
        or _of_subject(stated)
        or _of_configuration(said)
        or planned.fault(said, records, cells, policy)
        or measured.fault(said, records, cells)
        or amounts.fault(said, records)
        or _of_exposure(stated, policy, verdicts)
    )


def _of_lists(stated: Mapping[str, Any]) -> str | None:
    """What is listed twice says two things: a reader sees both, and a check the last one."""
    files = [each["name"] for each in stated["subject"]]
    families = [each["family"] for each in stated["predicate"]["attacks"]]
    for what, listed in (("file", files), ("attack", families)):
        if len(set(listed)) < len(listed):
            return f"it lists one {what} twice"
    return None if files == sorted(files) else "its files are not listed by name"


def _of_subject(stated: Mapping[str, Any]) -> str | None:
    """Whether what was measured is what the digests are of: files that a configuration defends first are other weights."""
    said, files = stated["predicate"], {each["name"]: each["digest"]["sha256"] for each in stated["subject"]}
    start = said["suite"]["config"].get("start") or {}
    for model, listed in ((said["model"], files), (said["reference"], (said["reference"] or {}).get("digests"))):
        # Of a model without files the digest of its weights stands in the place of theirs.
        if listed is not None and set(listed) == {WEIGHTS} and listed[WEIGHTS] != model["weights"]:
            return "a model is listed with other weights than it was measured with"
    if set(files) != {WEIGHTS} and start.get("defense") is not None:
        return "it lists files, and its configuration defends them before they are measured"
    return None


def _of_configuration(said: Mapping[str, Any]) -> str | None:
    """What is told beside the configuration and follows from it."""
    config = said["suite"]["config"]
    if not _is_time(said["started"]):
        return "the time at which it was started is none"
    if config.get("seed") != said["seed"]:
        return "its seed is not that of its configuration"
    if policy_of(config) != said["policy"]:
        return "its policy is not that of its configuration"
    if sorted(each["called"] for each in said["judges"]) != sorted(config.get("judge", {}).get("judges", {})):
        return "the judges listed are not those of its configuration"
    if (said["reference"] is None) != (said["speech"]["reference"] is None):
        return "it says how the reference speaks and has none, or has one and does not say how it speaks"
    if said["reference"] and said["reference"]["named_by"] != named_by(config):
        return "it is said who named the reference, and the configuration says otherwise"
    read = config.get("data"), config["suite"]["attacks"]
    known, named = undefended_of(said)
    if known != (said["undefended"] is not None) or named not in (None, said["undefended"]):
        return "the model before its guard is not the one that its configuration names"
    if said["data"].get("attacker") != SHARED and any(map(_shares, read)):
        return "attackers shared the defense's data, and it does not say so"
    return None


def _shares(config: Any) -> bool:
    """Whether a corpus of a configuration gives attackers what defenses train on."""
    if not isinstance(config, Mapping):
        return False
    return config.get("attacker") == SHARED or any(map(_shares, config.values()))


def _of_exposure(stated: Mapping[str, Any], policy: Policy, verdicts: tuple[Verdict, ...]) -> str | None:
    """What the suite holds out, what a model was trained against, and the limits that follow from this and from the verdicts."""
    said = stated["predicate"]
    if exposure_of(stated) != exposed_families(said):
        return "an attack is said to be held out, seen or unknown, and is not"
    if said["limits"] != limits_of(said, policy, verdicts):
        return "the limits are not those that follow from the rest"
    return None


def exposed_families(said: Mapping[str, Any]) -> dict[str, Exposure]:
    """How each family of the configuration stands to the model, as the predicate has to say."""
    config, trained = said["suite"]["config"], said["model"]["trained"]
    tuned = {name: tuple(each.get("populations") or ()) for name, each in config["suite"]["attacks"].items()}
    against = trained["against"] if trained else config.get("trained_against")
    return exposures(tuned, config["suite"].get("held_out") or (), against)


def limits_of(said: Mapping[str, Any], policy: Policy, verdicts: tuple[Verdict, ...]) -> list[str]:
    """The limits that a predicate has to tell."""
    config, attacks = said["suite"]["config"], said["attacks"]
    skipped, unmeasured = (
        {each["family"]: each[why] for each in attacks if each[why]} for why in ("skipped", "unmeasured")
    )
    unread = foreign(config["suite"], config.get("judge", {}).get("judges", {}), policy, skipped)
    about = exposure_of({"predicate": said}), verdicts, said["reference"] is not None, said["data"].get("attacker")
    return limits(policy, skipped, *about, unread, unmeasured, said["speech"], told_speech(config))


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _plain(node: Any) -> Any:
    """A configuration without the names of its classes."""
    if not isinstance(node, Mapping):
        return node
    return {name: _plain(each) for name, each in node.items() if name != "_target_"}
