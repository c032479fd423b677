"""``python -m immunax.attack model=PATH_OR_ID +attack=NAME``: red-team a checkpoint."""

from omegaconf import DictConfig

from immunax.runtime import digest, manifest
from immunax.runtime.launch import command, run_directory
from immunax.stages import report
from immunax.stages.guard import start_model
from immunax.stages.red_team import from_config, red_team
from immunax.stages.resume import check_same_run
from immunax.stages.setup import open_metrics, set_up


@command("attack", required=("attack",))
def main(config: DictConfig) -> None:
    """Attacks one model and leaves its records, figure, metrics and manifest in the run's folder."""
    folder, started = run_directory(), manifest.now()
    check_same_run(folder, config)
    setup, loaded = set_up(config)
    team = from_config(config, "attack", setup)
    digests = {**setup.digests, "attack data": digest.of_tree(team.data)}
    record = {"started": started, "seed": config.seed, "data": {"attack": vars(team.report)}}
    manifest.write_manifest(folder, config, digests, record)
    params = start_model(config.start, setup, loaded)
    del loaded
    with open_metrics(config, folder) as metrics:
        episodes = {
            folder.name: red_team(team, setup.model, params, setup.checkpoint.tokenizer, folder.name, config.seed)
        }
        report.deliver(folder, folder.name, episodes, team.before.dialogs, metrics)
    record |= {"results": report.results(episodes), "ended": manifest.now()}
    manifest.write_manifest(folder, config, digests, record)


if __name__ == "__main__":
    main()
