"""``python -m immunax.attack model=PATH_OR_ID +attack=NAME``: red-team a checkpoint."""

from pathlib import Path

from jax.sharding import Mesh

from immunax.attacks.attack import FineTuning
from immunax.campaign.search import Search
from immunax.models.lora import Adapted
from immunax.models.model import Params
from immunax.models.weights import check_dtype
from immunax.runtime import console, digest, manifest, mesh
from immunax.runtime.job import run_directory, run_title
from immunax.runtime.launch import command
from immunax.runtime.user_config import UserConfig
from immunax.stages import export, report
from immunax.stages.attackers_data import attackers_data, marked
from immunax.stages.guard import start_model
from immunax.stages.kept import record_counts
from immunax.stages.provenance import computed_as_made, lessons, passed_on
from immunax.stages.red_team import from_config
from immunax.stages.resume import check_same_inputs, check_same_run, is_finished
from immunax.stages.search import search_and_score, show, to_json
from immunax.stages.setup import Parts, Setup, open_metrics, set_up
from immunax.stages.subject import called
from immunax.stages.submitted import with_submitted
from immunax.stages.under_attack import red_team


@command("attack", required=("attack",), fallbacks={"model": ("hf", "path"), "attack": ("submitted", "file")})
def main(config: UserConfig) -> None:
    """Attacks one model and leaves its records, figure, metrics and manifest in the run's folder."""
    folder, started, config = run_directory(), manifest.now(), computed_as_made(with_submitted(config))
    check_same_run(folder, config)
    check_dtype(config.export_dtype)
    attack = config.build("attack")
    run, devices = _search, mesh.build(config.build("mesh"))
    if not isinstance(attack, Search):
        run, devices = _attack, mesh.for_one_model(devices)
    setup, loaded = set_up(Parts.given(config), devices)
    taught = lessons(config.model.get("path"))
    whose = attackers_data(taught, setup.splits, setup.digests["data"], [attack])
    record = {"started": started, "seed": config.seed, "attack_data": whose, "taught_before": passed_on(taught)}
    found = run(config, setup, loaded, devices, folder, record)
    if found is None:
        return
    episode, prompts, counts, digests, record = found
    name = _name(config)
    episodes = {name: episode}
    with open_metrics(config, folder) as metrics:
        fell = report.deliver(folder, marked(run_title(), whose), episodes, prompts, metrics, {name: counts})
    record |= {"results": report.results(episodes), "fall": report.costs_to_json(fell), "ended": manifest.now()}
    manifest.write_manifest(folder, config.plain, digests, record)


def _name(config: UserConfig) -> str:
    return called(config.build("model"), config.build("start"))


def _attack(
    config: UserConfig, setup: Setup, loaded: Params, devices: Mesh, folder: Path, record: dict
) -> tuple | None:
    team = from_config(config, "attack", setup)
    adapters = team.attack.tuning.lora if isinstance(team.attack, FineTuning) else None
    export.check(adapters, config.export_adapter, "+attack=harmful_sft_lora")
    digests = {**setup.digests, "attack data": digest.of_tree(team.data)}
    check_same_inputs(folder, digests)
    if is_finished(folder, config):
        return None
    record |= {"data": record_counts(team.counts, team.lengths)}
    manifest.write_manifest(folder, config.plain, digests, record)
    params = start_model(config.build("start"), setup, loaded)

    def keep(attacked: Params) -> None:
        if config.export_adapter and adapters is not None and isinstance(attacked, Adapted):
            with console.phase("export"):
                export.export_adapter(folder, setup.checkpoint, adapters, params, attacked.lora, config.export_dtype)

    tokenizer = setup.checkpoint.tokenizer
    episode = red_team(team, setup.model, params, tokenizer, _name(config), config.seed, keep=keep)
    return episode, team.before.dialogs, team.counts, digests, record


def _search(
    config: UserConfig, setup: Setup, loaded: Params, devices: Mesh, folder: Path, record: dict
) -> tuple | None:
    export.check(None, config.export_adapter, "one attack, as +attack=harmful_sft_lora, where a search makes many")
    check_same_inputs(folder, setup.digests)
    if is_finished(folder, config):
        return None
    manifest.write_manifest(folder, config.plain, setup.digests, record)
    attack, evaluation = config.build("attack"), config.build("judge")
    params = start_model(config.build("start"), setup, loaded)
    searched = search_and_score(attack, evaluation, setup, params, _name(config), config.seed, devices)
    show(searched.found)
    record |= {"data": searched.data, "search": to_json(searched.found)}
    return searched.episode, searched.prompts, searched.counts, setup.digests, record


if __name__ == "__main__":
    main()
