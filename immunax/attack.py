"""``python -m immunax.attack model=PATH_OR_ID +attack=NAME``: red-team a checkpoint."""

from omegaconf import DictConfig

from immunax.runtime import digest, manifest
from immunax.runtime.launch import command, run_directory
from immunax.runtime.metrics import Metrics
from immunax.stages import report
from immunax.stages.red_team import assemble, lengths, red_team
from immunax.stages.resume import check_same_run
from immunax.stages.setup import build, check_context, set_up


@command("attack", required=("attack",))
def main(config: DictConfig) -> None:
    """Attacks one model and leaves its records, figure, metrics and manifest in the run's folder."""
    folder, started = run_directory(), manifest.now()
    check_same_run(folder, config)
    setup, params = set_up(config)
    tokenizer = setup.checkpoint.tokenizer
    team = assemble(build(config.attack), build(config.judge), tokenizer, setup.splits, build(config.probes))
    check_context(setup.model, lengths("attack", team))
    digests = {**setup.digests, "attack data": digest.of_tree(team.data)}
    record = {"started": started, "seed": config.seed, "data": {"attack": vars(team.report)}}
    manifest.write_manifest(folder, config, digests, record)
    with Metrics(folder, [build(config.tracker)] if "tracker" in config else []) as metrics:
        episodes = {folder.name: red_team(team, setup.model, params, tokenizer, folder.name, config.seed)}
        report.deliver(folder, folder.name, episodes, team.before.dialogs, metrics)
    record |= {"results": report.results(episodes), "ended": manifest.now()}
    manifest.write_manifest(folder, config, digests, record)


if __name__ == "__main__":
    main()
