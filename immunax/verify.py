"""``python -m immunax.verify PATH/certificate.json``: audit a certificate, of a file or of a model on the Hub.

Exit statuses: 0 where no check failed and the policy, if one is given, is met; 1 where not, also where the certificate, its
tables or the model's files are damaged; 2 for a mistake in the command: an option, a policy, a key, or a path that cannot be read
or written. Whatever a stranger's file says, each check is one line.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from immunax.certificate import bundle
from immunax.certificate.facts import attack_data, template_of
from immunax.certificate.gate import policy_name, reference_of, suite_name, told, unmet
from immunax.certificate.shipped import told as as_shipped
from immunax.certificate.signing import make_key, public_key
from immunax.certificate.statement import FILE, PUSHED, parse, policy_from_json
from immunax.certificate.verify import Check, assessed, check, failed, with_policy
from immunax.runtime import escaped
from immunax.runtime.errors import UserError, refused
from immunax.runtime.escaped import escape_logs
from immunax.runtime.exits import EXIT_USER
from immunax.runtime.leader import is_leader
from immunax.runtime.names import HUB_ID
from immunax.runtime.untrusted.files import read_bytes
from immunax.runtime.untrusted.values import Limits, parse_yaml

EXIT_FAILED = 1
_POLICY = Limits(size=1 << 16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks, prints one line each, and gives the exit status.

    Args:
      arguments: of the command line; the process's own by default.
    """
    parser = argparse.ArgumentParser(prog="python -m immunax.verify", description="Audit a certificate.")
    parser.add_argument(
        "certificate",
        type=Path,
        nargs="?",
        help="certificate.json, with its records beside it; or OWNER/NAME[@REVISION] of the Hub, with the model",
    )
    parser.add_argument("--model", type=Path, help="folder of the model's files, to compare their digests")
    parser.add_argument("--key", type=Path, help="PEM file of the public key that should have signed it")
    parser.add_argument("--bundle-key", type=Path, help="PEM file of the public key of the Sigstore bundle model.sig")
    parser.add_argument("--replay", type=int, default=0, metavar="N", help="run N cells again, deciding ones first")
    parser.add_argument("--reference", type=Path, help="files of the reference, to replay its cells too")
    parser.add_argument(
        "--other-device", action="store_true", help="the replay allows what a CPU and an accelerator differ by"
    )
    parser.add_argument("--chat-template", type=Path, help="file of the template that the model was asked with, if any")
    parser.add_argument("--data", type=Path, help="folder of the data's files, for a replay")
    parser.add_argument(
        "--mesh", default="", help="devices that a replay is spread over, such as fsdp=4,tensor=2 or fsdp=-1"
    )
    parser.add_argument(
        "--coordinator", help="of a replay by several processes: host:port of the first, see docs/processes.md"
    )
    parser.add_argument("--processes", type=int, help="how many there are")
    parser.add_argument("--process-id", type=int, help="which one this is, from 0")
    parser.add_argument("--policy", type=Path, help="YAML of thresholds and requirements: a release gate")
    parser.add_argument("--make-key", type=Path, metavar="PATH", help="make a key pair for signing, and exit")
    options = parser.parse_args(arguments)
    escape_logs()
    if options.replay > 0:
        return _together(options, lambda: _main(options))
    return _main(options)


def _together(options: argparse.Namespace, act: Callable[[], int]) -> int:
    """Acts in every process of a job, where this is one; the first alone speaks."""
    from immunax.runtime import code, digest, manifest, watch
    from immunax.runtime.distributed import Distributed, begin
    from immunax.runtime.ending import ended_with_others
    from immunax.runtime.host_devices import make_room
    from immunax.runtime.one_line import in_one_line
    from immunax.runtime.together import processes

    same = {name: str(value) for name, value in vars(options).items() if name != "process_id"}
    about = {
        "command": digest.of_json(same),
        "code": code.package_digest(),
        "library": digest.of_json(manifest.versions()),
    }
    with ended_with_others(), in_one_line():
        begin(Distributed(options.coordinator, options.processes, options.process_id), lambda: about)
        make_room()
        with watch.losses():
            status = act()
        if status == EXIT_USER and processes() > 1:
            raise SystemExit(status)  # which ends the others, who may not have met the same
        return status


def _main(options: argparse.Namespace) -> int:
    try:
        if options.make_key is not None:
            say(f"private key {options.make_key}, public key {make_key(options.make_key)}")
            return 0
        if options.certificate is None:
            raise UserError("no certificate: give the path of certificate.json.")
        if _is_on_the_hub(options.certificate):
            _bring(options)
        return _audit(options)
    except (UserError, OSError) as error:
        escaped.say(f"error: {refused(error) if isinstance(error, OSError) else error}", error=True)
        return EXIT_USER


def _is_on_the_hub(certificate: Path) -> bool:
    """Whether a model of the Hub is named, and not a file here, or one that should be here."""
    name = str(certificate).partition("@")[0]
    return HUB_ID.fullmatch(name) is not None and certificate.suffix != ".json" and not certificate.exists()


def _bring(options: argparse.Namespace) -> None:
    """Downloads a model with its certificate; all of its files, since others that decide what is loaded may be there too."""
    from immunax.models.download import download

    name, _, revision = str(options.certificate).partition("@")
    folder = download(name, revision or None, everything=True)
    options.certificate = folder / PUSHED / FILE
    options.model = options.model or folder
    if not options.certificate.is_file():
        raise UserError(f"{name}: has no {PUSHED}/{FILE}; immunax.push sends one with a model.")


def say(text: str) -> None:
    """Prints a line, of several processes in the first."""
    if is_leader():
        escaped.say(text)


def _audit(options: argparse.Namespace) -> int:
    key = None if options.key is None else public_key(options.key)
    if options.replay < 0:
        raise UserError(f"--replay {options.replay}: expected a number of cells.")
    asked = None if options.policy is None else _read(options.policy)
    checks = check(options.certificate, options.model, key)
    if options.bundle_key is not None:
        checks.append(_bundle(options))
    _show(checks)
    if failed(checks):
        return EXIT_FAILED
    _, stated = parse(options.certificate)
    policy = None if asked is None else with_policy(stated, asked)
    say(f"suite        {suite_name(stated)}")
    say(f"rules        {as_shipped(stated)}")
    say(f"attack data  {attack_data(stated)}")
    say(f"template     {template_of(stated)}")
    say(f"reference    {reference_of(stated)}")
    say(f"stated with  {told(policy_from_json(stated['predicate']['policy']))}; policy {policy_name(stated)}")
    if options.replay:
        from immunax.stages import replay  # the attacks, and jax with them, are only needed here

        files = replay.Files(options.model, options.reference, options.data, options.chat_template)
        tolerance = replay.ELSEWHERE if options.other_device else replay.HERE
        replayed = replay.replay(
            options.certificate.parent, stated, options.replay, files, tolerance, policy, replay.mesh_of(options.mesh)
        )
        _show(replayed)
        if failed(replayed):
            return EXIT_FAILED
    if policy is None:
        return 0
    say(f"policy       {told(policy)}")
    lines = unmet(assessed(options.certificate.parent, stated, policy), policy.require, checks, stated)
    _show(
        [Check("policy", "failed", line) for line in lines] or [Check("policy", "passed", "every requirement is met")]
    )
    return EXIT_FAILED if lines else 0


def _bundle(options: argparse.Namespace) -> Check:
    if options.model is None:
        raise UserError("--bundle-key: a bundle is about the model's files; give --model FOLDER too.")
    fault = bundle.folder_fault(options.model, options.bundle_key, options.certificate.with_name(bundle.FILE))
    return Check("bundle", "passed", "by the key given") if fault is None else Check("bundle", "failed", fault)


def _show(checks: Sequence[Check]) -> None:
    for each in checks:
        say(f"{each.result:<12} {each.name}: {each.detail}")


def _read(path: Path) -> dict[str, Any]:
    found = parse_yaml(
        read_bytes(path, _POLICY.size), f"policy {path}", _POLICY, "write it as the ones in docs/policies"
    )
    if not isinstance(found, dict):
        raise UserError(f"policy {path}: expected fields of a policy, such as require: {{resistance: holds}}.")
    return found


if __name__ == "__main__":
    sys.exit(main())
