"""``python -m immunax.attack model=PATH_OR_ID +attack=NAME``: red-team a checkpoint."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from immunax.attacks.attack import FineTuning
from immunax.campaign.programs import Program
from immunax.campaign.search import Search
from immunax.conditions.episode import Episode
from immunax.models.compute_copy import compute_copy
from immunax.models.lora import Adapted, LoraSpec
from immunax.models.model import Model, Params
from immunax.models.weights import check_dtype
from immunax.runtime import console, digest, goodput, manifest, mesh, performance, profile
from immunax.runtime.errors import UserError
from immunax.runtime.job import Run, run_directory, run_title
from immunax.runtime.launch import command
from immunax.runtime.parked import Parked
from immunax.runtime.user_config import UserConfig
from immunax.stages import export, report
from immunax.stages.attackers_data import attackers_data, marked
from immunax.stages.guard import start_model
from immunax.stages.kept import record_counts, record_programs
from immunax.stages.provenance import Lesson, computed_as_made, lessons, passed_on
from immunax.stages.red_team import RedTeam, from_config
from immunax.stages.resume import check_same_inputs, check_same_run, is_finished
from immunax.stages.search import search_and_score, show, to_json
from immunax.stages.setup import Parts, Setup, open_metrics, set_up
from immunax.stages.subject import called
from immunax.stages.submitted import with_submitted
from immunax.stages.under_attack import Assault, populations, red_teams

UNREAD = ("trainer", "red_team")
"""What a model may bring for ``immunax.train``, and nothing here reads."""


class Prepared(NamedTuple):
    """A run that is about to attack.

    Attributes:
      run: its folder and configuration.
      team: the attack, and what is asked.
      digests: SHA-256 of what it reads.
      record: of its manifest so far.
    """

    run: Run
    team: RedTeam
    digests: dict[str, str]
    record: dict[str, Any]


def attack_all(runs: Sequence[Run]) -> Iterator[Run]:
    """Attacks one model in several ways, and leaves the records, figure, metrics and manifest of each in its run's folder.

    Args:
      runs: that differ in their attacks and seeds alone.

    Yields:
      Each that has ended; what ends one before its time is its own.
    """
    started, attacks = manifest.now(), []
    for run in runs:
        with run.apart():
            run.config = computed_as_made(with_submitted(run.config))
            check_same_run(run.folder, run.config)
            check_dtype(run.config.export_dtype)
            _check_trace(run.config)
            if not isinstance(run.config.build("attack"), Search):
                attacks.append(run)
                continue
            _search(run, started)
        yield run
    if attacks:
        yield from _attack(attacks, started)


@command(
    "attack",
    required=("attack",),
    fallbacks={"model": ("hf", "path"), "attack": ("submitted", "file")},
    together=attack_all,
    differ=("attack", "seed", *UNREAD),
)
def main(config: UserConfig) -> None:
    """Attacks one model and leaves its records, figure, metrics and manifest in the run's folder."""
    run = Run(config, run_directory(), run_title())
    for _ in attack_all([run]):
        pass
    if run.failed is not None:
        raise run.failed


def _check_trace(config: UserConfig) -> None:
    """Refuses to record what has no steps: a rung of a search and an edit are a program each."""
    if profile.read(config.trace) is not None and not isinstance(config.build("attack"), FineTuning):
        raise UserError(
            f"trace={config.trace}: steps of a fine-tuning are recorded, and this attack takes none of its own; leave it out, or "
            "trace +attack=harmful_sft."
        )


def _name(config: UserConfig) -> str:
    return called(config.build("model"), config.build("start"))


def _attack(runs: Sequence[Run], started: str) -> Iterator[Run]:
    config = runs[0].config
    devices = mesh.for_one_model(mesh.build(config.build("mesh")))
    setup, loaded = set_up(Parts.given(config), devices)
    taught, prepared = lessons(config.model.get("path")), []
    for run in runs:
        with run.apart():
            prepared += _prepared(run, setup, taught, started)
    if not prepared:
        return
    start, tokenizer = Parked(start_model(config.build("start"), setup, loaded)), setup.checkpoint.tokenizer
    del loaded
    assaults = [Assault(each.team, each.run.config.seed, _keeper(each, setup, start)) for each in prepared]
    parts, params = populations(assaults, tokenizer, setup.splits), _read(prepared, setup.model, start)
    with profile.recorded(profile.read(config.trace), profile.ATTACK, prepared[0].run.folder):
        for place, found in red_teams(assaults, parts, setup.model, params, tokenizer, _name(config)):
            run, team, digests, record = prepared[place]
            with run.apart():
                if not isinstance(found, Episode):
                    raise found
                _deliver(run, found, team.before.dialogs, team.counts, digests, record)
            yield run


def _prepared(run: Run, setup: Setup, taught: tuple[Lesson, ...], started: str) -> list[Prepared]:
    """The run, but for one that has ended."""
    config = run.config
    team = from_config(config, "attack", setup)
    adapters = team.attack.tuning.lora if isinstance(team.attack, FineTuning) else None
    export.check(adapters, config.export_adapter, "+attack=harmful_sft_lora")
    digests = {**setup.digests, "attack data": digest.of_tree(team.data)}
    check_same_inputs(run.folder, digests)
    if is_finished(run.folder, config):
        return []
    record = _record(run, setup, taught, started) | {"data": record_counts(team.counts, team.lengths)}
    record["tokens"] = record_programs([team.material] if isinstance(team.material, Program) else [])
    manifest.write_manifest(run.folder, config.plain, digests, record)
    _account(run)
    return [Prepared(run, team, digests, record)]


def _record(run: Run, setup: Setup, taught: tuple[Lesson, ...], started: str) -> dict[str, Any]:
    whose = attackers_data(taught, setup.splits, setup.digests["data"], [run.config.build("attack")])
    return {
        "started": started,
        "choices": dict(run.choices),
        "seed": run.config.seed,
        "attack_data": whose,
        "taught_before": passed_on(taught),
    }


def _account(run: Run) -> None:
    goodput.record(run.folder)
    goodput.resumed()  # from nothing: an attack is made in one go


def _adapters(prepared: Prepared) -> LoraSpec | None:
    attack = prepared.team.attack
    return attack.tuning.lora if isinstance(attack, FineTuning) else None


def _read(prepared: Sequence[Prepared], model: Model, start: Parked) -> Params:
    """The weights to attack: copies in the dtype of the computation where adapters alone train; those loaded are parked then."""
    if any(_adapters(each) is None for each in prepared):
        return start.here()
    read = compute_copy(start.here(), model.dtype)
    start.park()
    return read


def _keeper(prepared: Prepared, setup: Setup, start: Parked) -> Any:
    """What exports the adapters that an attack has trained, where that is asked for."""
    adapters, config = _adapters(prepared), prepared.run.config
    if not config.export_adapter or adapters is None:
        return None

    def keep(attacked: Params) -> None:
        if isinstance(attacked, Adapted):
            with console.phase("export"), goodput.spending("save"):
                folder, kind = prepared.run.folder, config.export_dtype
                export.export_adapter(folder, setup.checkpoint, adapters, start.there(), attacked.lora, kind)

    return keep


def _search(run: Run, started: str) -> None:
    config, devices = run.config, mesh.build(run.config.build("mesh"))
    setup, loaded = set_up(Parts.given(config), devices)
    export.check(None, config.export_adapter, "one attack, as +attack=harmful_sft_lora, where a search makes many")
    check_same_inputs(run.folder, setup.digests)
    record = _record(run, setup, lessons(config.model.get("path")), started)
    if is_finished(run.folder, config):
        return
    manifest.write_manifest(run.folder, config.plain, setup.digests, record)
    _account(run)
    attack, evaluation = config.build("attack"), config.build("judge")
    params = start_model(config.build("start"), setup, loaded)
    searched = search_and_score(attack, evaluation, setup, params, _name(config), config.seed, devices)
    show(searched.found)
    record |= {"data": searched.data, "tokens": searched.tokens, "search": to_json(searched.found)}
    _deliver(run, searched.episode, searched.prompts, searched.counts, setup.digests, record)


def _deliver(
    run: Run, episode: Episode, prompts: Any, counts: Any, digests: dict[str, str], record: dict[str, Any]
) -> None:
    name = _name(run.config)
    episodes = {name: episode}
    with open_metrics(run.config, run.folder) as metrics:
        title = marked(run.title, record["attack_data"])
        with goodput.spending("save"):
            fell = report.deliver(run.folder, title, episodes, prompts, metrics, {name: counts})
            performance.log(metrics, run.folder)
    record |= {"results": report.results(episodes), "fall": report.costs_to_json(fell)}
    record |= {"performance": performance.summary(run.folder), "goodput": goodput.summary(run.folder)}
    record |= {"ended": manifest.now()}
    manifest.write_manifest(run.folder, run.config.plain, digests, record)


if __name__ == "__main__":
    main()
