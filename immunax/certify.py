"""``python -m immunax.certify model=PATH_OR_ID suite=NAME``: attack a model, and state what was found."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from immunax.certificate.facts import attack_data
from immunax.conditions.percent import percent
from immunax.conditions.records import REFERENCE, SUBJECT
from immunax.conditions.verdict import Verdict, numbers
from immunax.runtime import console, digest, goodput, manifest, mesh, performance, profile
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.job import run_directory
from immunax.runtime.launch import command
from immunax.runtime.together import agreed
from immunax.runtime.user_config import UserConfig
from immunax.stages.attackers_data import attackers_data, marked
from immunax.stages.bench import bench
from immunax.stages.cells import CellStore
from immunax.stages.certify import exposed, run_suite
from immunax.stages.issue import issue, keys
from immunax.stages.kept import tokens_by_family
from immunax.stages.planned import Weights
from immunax.stages.provenance import computed_as_made, lessons
from immunax.stages.resume import check_same_inputs, check_same_run
from immunax.stages.setup import open_metrics, set_up
from immunax.stages.subject import Asked, exported, reference, subject, undefended
from immunax.stages.submitted import with_submitted


@command("certify", fallbacks={"model": ("hf", "path"), "reference": ("hf", "path")})
def main(config: UserConfig) -> None:
    """Runs the suite on the model and on its reference, and leaves a certificate in the run's folder."""
    folder, config = run_directory(), computed_as_made(with_submitted(config))
    check_same_run(folder, config)
    asked, traced = Asked.given(exported(config)), profile.read(config.trace)
    devices = mesh.build(config.build("mesh"))
    setup, loaded = set_up(asked.parts, devices)
    check_same_inputs(folder, setup.digests)
    if not (folder / manifest.FILE).exists():
        manifest.write_manifest(folder, config.plain, setup.digests, {"started": manifest.now()})
    goodput.record(folder)
    goodput.resumed()  # from the cells that are done
    with goodput.spending("load"):
        certified = subject(asked, setup, loaded)
        signed_by = keys(config, certified)
        other = reference(asked, certified, setup)
        base = undefended(asked, certified, setup, loaded)
    suite, evaluation, policy = config.build("suite"), config.build("judge"), config.build("policy")
    if certified.record is None:
        attacks = [path.stem for path in (configuration_folder() / "attack").glob("*.yaml")]
        faced = exposed(suite, config.trained_against, "trained_against", attacks)
    else:
        faced = exposed(
            suite, certified.record.get("trained_against"), "trained_against in the manifest of the model's run"
        )
    with goodput.spending("prepare"):
        shared = bench(suite, evaluation, setup.checkpoint.tokenizer, setup.splits, config.seed, devices)

    models = {SUBJECT: certified, **({} if other is None else {REFERENCE: other})}
    weights = {role: Weights(each.params, each.weights) for role, each in models.items()}
    given = None if base is None else Weights(base.params, base.weights)
    with profile.recorded(traced, profile.ATTACK, folder):
        campaign = run_suite(shared, setup.model, weights, CellStore(folder / "cells"), policy, given)
    performance.end()
    with open_metrics(config, folder) as metrics:
        performance.log(metrics, folder)
    digests = {"data": setup.digests["data"]}
    if suite.lookalikes is not None:
        digests["lookalikes"] = digest.of_json(asdict(suite.lookalikes.splits()))
    taught = lessons(config.model.get("path"))
    whose = attackers_data(taught, setup.splits, setup.digests["data"], suite.attacks.values())
    data = {"digests": digests, "attacker": whose}
    before = None if base is None else base.weights
    with goodput.spending("save"):
        stated = agreed(
            lambda: issue(
                folder, config, campaign, certified, other, before, faced, policy, evaluation, data, signed_by
            )
        )
    _show(stated)
    said = {"certificate": numbers(Verdict(**each) for each in stated["predicate"]["verdicts"])}
    spent = {"performance": performance.summary(folder), "goodput": goodput.summary(folder)}
    manifest.end(folder, {**said, "tokens": tokens_by_family(folder), **spent})


def _show(stated: Mapping[str, Any]) -> None:
    said = stated["predicate"]
    rows = [
        [each["condition"], each["claim"], each["scope"], each["side"], each["outcome"], each["reason"]]
        for each in said["verdicts"]
    ]
    about = f"certificate of {said['model']['name']}, {percent(said['policy']['confidence'])} confidence"
    title = marked(about, attack_data(stated))
    console.table(title, ["condition", "claim", "attacks", "side", "outcome", "why"], rows)


if __name__ == "__main__":
    main()
