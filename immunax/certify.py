"""``python -m immunax.certify model=PATH_OR_ID suite=NAME``: attack a model, and state what was found."""

from omegaconf import DictConfig

from immunax.conditions.assess import assess
from immunax.conditions.records import REFERENCE, SUBJECT
from immunax.models.model import Params
from immunax.runtime import digest, manifest, mesh
from immunax.runtime.launch import command, run_directory
from immunax.stages.cells import Store
from immunax.stages.certify import Weights, exposure, run_suite
from immunax.stages.measure import bench
from immunax.stages.resume import check_same_run
from immunax.stages.setup import build, set_up
from immunax.stages.subject import exported, reference, subject, undefended


@command("certify", fallbacks={"model": ("hf", "path"), "reference": ("hf", "path")})
def main(config: DictConfig) -> None:
    """Runs the suite on the model and on its reference, and leaves a certificate in the run's folder."""
    folder = run_directory()
    check_same_run(folder, config)
    if not (folder / manifest.FILE).exists():
        manifest.write_manifest(folder, config, {}, {"started": manifest.now()})
    changed = exported(config)
    setup, loaded = set_up(changed)
    certified = subject(changed, setup, loaded)
    other = reference(changed, certified, setup)
    base = undefended(changed, certified, loaded)
    suite, evaluation, policy = build(config.suite), build(config.judge), build(config.policy)
    devices = mesh.build(build(config.mesh))
    shared = bench(suite, evaluation, setup.checkpoint.tokenizer, setup.splits, config.seed, devices)

    models = {SUBJECT: _weights(certified.params)} | ({} if other is None else {REFERENCE: _weights(other.params)})
    given = None if base is None else _weights(base)
    campaign = run_suite(shared, setup.model, models, Store(folder / "cells"), given)
    for v in assess(*campaign.measured, policy, exposure(suite, (certified.record or {}).get("trained_against"))):
        print(v.condition, v.claim, v.scope, v.side, v.outcome, v.value, v.low, v.high, v.reason)
    print(campaign.skipped)


def _weights(params: Params) -> Weights:
    return Weights(params, digest.of_tree(params))


if __name__ == "__main__":
    main()
