"""``python -m immunax.train +defense=NAME`` or ``+recipe=NAME``: immunize a model, attack it, and show what the attack does."""

import json
import sys
from pathlib import Path
from typing import Any

from immunax.conditions.episode import Episode, from_json, to_json
from immunax.models import speech
from immunax.models.model import Params
from immunax.models.weights import check_dtype
from immunax.outer.exposure import trained_against
from immunax.outer.feed import Feed, feed
from immunax.outer.training import RESULTS
from immunax.runtime import cache, console, digest, goodput, manifest, mesh, performance, profile
from immunax.runtime.carried import check_place
from immunax.runtime.job import run_directory, run_title
from immunax.runtime.launch import command
from immunax.runtime.parked import Parked
from immunax.runtime.together import agreed
from immunax.runtime.user_config import UserConfig
from immunax.stages import export, recipe, report
from immunax.stages.attackers_data import attackers_data, marked
from immunax.stages.defend import defend
from immunax.stages.defender import defender
from immunax.stages.guard import start_model
from immunax.stages.identity import identity
from immunax.stages.kept import help_with_rows, record_counts, record_tokens
from immunax.stages.provenance import computed_as_made, lessons, passed_on
from immunax.stages.red_team import RedTeam, from_config
from immunax.stages.resume import check_same_inputs, check_same_run, is_finished
from immunax.stages.setup import CHECKPOINTS, MODEL, Parts, Setup, check_context, open_metrics, set_up
from immunax.stages.submitted import with_submitted
from immunax.stages.under_attack import red_team

START, IMMUNIZED = "start model", "immunized"


@command("train", required=("defense",))
def main(config: UserConfig) -> None:
    """The main job; docs/default_run.md says what it leaves in the run's folder."""
    folder, started, config = run_directory(), manifest.now(), computed_as_made(with_submitted(recipe.applied(config)))
    check_same_run(folder, config)
    check_place(folder / CHECKPOINTS)
    check_dtype(config.export_dtype)
    traced = profile.read(config.trace)
    devices = mesh.for_one_model(mesh.build(config.build("mesh")))
    setup, loaded = set_up(Parts.given(config), devices)
    tokenizer = setup.checkpoint.tokenizer
    defense, training = defender(config), config.build("trainer")
    export.check(training.lora, config.export_adapter, "trainer=lora")
    export.check_kept(training, config.export_adapter)
    weightless = training.keep == RESULTS
    attack = "attack" if "attack" in config else "red_team"
    check_context(setup.model, {"trainer.max_length": training.max_length})
    team = from_config(config, attack, setup)
    with goodput.spending("prepare"):
        data = feed(tokenizer, setup.splits.train, defense.mixture, training, mesh.data_ways(devices))
    digests = {**setup.digests, "attack data": digest.of_tree(team.data)}
    check_same_inputs(folder, digests)
    if is_finished(folder, config, () if weightless else (MODEL,), CHECKPOINTS):
        return export.leave(folder, training.keep)
    record: dict[str, Any] = {
        "started": started,
        "seed": config.seed,
        "data": _data_counts(data, team, training.max_length),
        "tokens": record_tokens(
            "a step of the defense", data.tokens, help_with_rows(defense.mixture, mesh.data_ways(devices))
        ),
    }
    taught = lessons(config.model.get("path"))
    whose = attackers_data(taught, setup.splits, setup.digests["data"], [team.attack])
    faced = sorted({*trained_against(defense), *(name for lesson in taught for name in lesson.against)})
    record |= {"trained_against": faced, "attack_data": whose, "taught_before": passed_on(taught)}
    manifest.write_manifest(folder, config.plain, digests, record)
    goodput.record(folder)
    start = Parked(start_model(config.build("start"), setup, loaded))
    base = Parked(loaded) if defense.reference == "base" else None
    del loaded
    with export.left_behind(folder, training.keep), open_metrics(config, folder) as metrics:
        with profile.recorded(traced, profile.TRAIN, folder):
            outcome = defend(setup.model, start, defense, training, data, devices, metrics, folder / CHECKPOINTS, base)
        del base
        if outcome.stopped is not None:
            console.note(f"stopped and saved; the same command goes on from there (run={run_title()})")
            sys.exit(outcome.stopped)
        if not weightless:
            with console.phase("export"), goodput.spending("save"):
                kind = config.export_dtype, config.export_adapter
                export.export_run(folder, setup.checkpoint, training, start.there(), outcome, *kind)
        episodes = {START: _start_episode(config, setup, team, start.here())}
        goodput.keep()  # in the cache
        del start
        episodes[IMMUNIZED] = red_team(team, setup.model, outcome.params, tokenizer, IMMUNIZED, config.seed)
        counts = {START: team.counts, IMMUNIZED: {**data.counts, **team.counts}}
        with goodput.spending("save"):
            fell = report.deliver(folder, marked(run_title(), whose), episodes, team.before.dialogs, metrics, counts)
            performance.log(metrics, folder)
    made = {} if weightless else agreed(lambda: digest.of_folder(folder / MODEL))
    weights = {f"model/{name}": value for name, value in made.items()}
    record |= {"results": report.results(episodes), "fall": report.costs_to_json(fell)}
    record |= {"performance": performance.summary(folder), "goodput": goodput.summary(folder), "ended": manifest.now()}
    manifest.write_manifest(folder, config.plain, {**digests, **weights}, record)
    export.leave(folder, training.keep)


def _data_counts(data: Feed, team: RedTeam, length: int) -> dict[str, Any]:
    """How much of each stream is used; said aloud where any is lost."""
    lengths = {**dict.fromkeys(data.counts, f"trainer.max_length={length}"), **team.lengths}
    return record_counts({**data.counts, **team.counts}, lengths)


def _start_episode(config: UserConfig, setup: Setup, team: RedTeam, start: Params) -> Episode:
    """The start model under attack: the same for every defense, so it is cached by content."""
    measured = team.attack, team.evaluation, team.probes
    material = team.before.prompts, team.after.prompts, team.before.harmful, team.before.retain
    key = {
        "weights": digest.of_tree(start),
        "data": setup.digests["data"],
        "encoded": digest.of_tree((team.data, material)),
        "speech": speech.digests(setup.checkpoint.tokenizer),
        "team": identity(measured),
        "seed": config.seed,
        "model": repr(setup.model),
        "versions": manifest.versions(),
    }

    def write(episode: Episode, folder: Path) -> None:
        (folder / "episode.json").write_text(json.dumps(to_json(episode)))

    return cache.get_or_make(
        "episode",
        key,
        lambda: red_team(team, setup.model, start, setup.checkpoint.tokenizer, START, config.seed),
        lambda folder: from_json(json.loads((folder / "episode.json").read_text())),
        write,
        [red_team, *measured],
    )


if __name__ == "__main__":
    main()
