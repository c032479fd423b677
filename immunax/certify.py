"""``python -m immunax.certify model=PATH_OR_ID suite=NAME``: attack a model, and state what was found."""

from omegaconf import DictConfig

from immunax.runtime import manifest, mesh
from immunax.runtime.launch import command, run_directory
from immunax.stages.cells import Store
from immunax.stages.certify import exposure, run_suite
from immunax.stages.measure import bench
from immunax.stages.resume import check_same_run
from immunax.stages.setup import build, set_up
from immunax.stages.subject import exported, reference, subject, undefended


@command("certify", fallbacks={"model": ("hf", "path"), "reference": ("hf", "path")})
def main(config: DictConfig) -> None:
    """Runs the suite on the model and on its reference, and leaves a certificate in the run's folder."""
    folder, started = run_directory(), manifest.now()
    check_same_run(folder, config)
    config = exported(config)
    setup, loaded = set_up(config)
    certified = subject(config, setup, loaded)
    other = reference(config, certified, setup)
    suite, evaluation, policy = build(config.suite), build(config.judge), build(config.policy)
    shared = bench(
        suite, evaluation, setup.checkpoint.tokenizer, setup.splits, config.seed, mesh.build(build(config.mesh))
    )
    models = {"subject": certified.params} | ({} if other is None else {"reference": other.params})
    campaign = run_suite(shared, setup.model, models, Store(folder / "cells"), undefended(certified))
    from immunax.conditions.assess import assess

    for v in assess(
        *campaign.measured,
        policy,
        exposure(suite, (certified.record or {}).get("trained_against", config.trained_against)),
    ):
        print(v.condition, v.claim, v.scope, v.side, v.outcome, v.value, v.low, v.high, v.reason)
    print(campaign.skipped)


if __name__ == "__main__":
    main()
