"""The league of defenses on the organism; see the README beside this.

    uv run python experiments/organism_league/run.py [DEFENSE ...]

Chooses each defense's settings on the validation split, then attacks the chosen ones with the common attack and scores them on
the test split: with the attackers' own data, which no defense and no choice has seen, and with those of the defense. Goes on
where it was stopped: what ``trials.jsonl`` and ``results.jsonl`` hold is not run again.
"""

from immunax.runtime.host_devices import make_room

make_room()

import json  # noqa: E402
import sys  # noqa: E402
from functools import lru_cache  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
from attacks import ATTACK_SEEDS, CHOOSING_SEEDS, KEEP, kinds, scored, team  # noqa: E402
from defenses import UNDEFENDED, configuration, defended, organism, trials  # noqa: E402
from figure import draw, draw_trials, write_table  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from immunax.conditions.episode import summarise  # noqa: E402
from immunax.data.dialog import OWN, SHARED  # noqa: E402
from immunax.judges.evaluate import evaluate, held_out  # noqa: E402
from immunax.runtime import console, digest  # noqa: E402
from immunax.runtime.errors import UserError  # noqa: E402
from immunax.stages.report import summary_to_json  # noqa: E402

HERE = Path(__file__).parent
TRIALS, RESULTS = HERE / "trials.jsonl", HERE / "results.jsonl"
TRAINING_SEED = 0


def main(names: list[str]) -> None:
    """Runs what is missing, then draws."""
    tried = OmegaConf.to_container(OmegaConf.load(HERE / "defenses.yaml"))
    assert isinstance(tried, dict)
    chosen = {UNDEFENDED: []} | {name: choose(name, tried[name]) for name in names or map(str, tried)}
    attackers = {whose: team(kinds(HERE / "attacks.yaml"), "test", ATTACK_SEEDS, whose) for whose in (OWN, SHARED)}
    for name, overrides in chosen.items():
        if overrides is None or find(RESULTS, name, overrides) is not None:
            continue
        params = defended(name, overrides, TRAINING_SEED)
        with console.phase(f"attack {name}"):
            after = {whose: scored(each, params) for whose, each in attackers.items()}
        keep(RESULTS, {**about(name, overrides), "before": before(params, "test"), "after": after})
    found = [find(RESULTS, name, overrides) for name, overrides in chosen.items() if overrides is not None]
    records = [record for record in found if record is not None]
    draw(records, HERE / "figure.png")
    tried_here = [each for each in read(TRIALS) if each["start"] == _start()]
    draw_trials(tried_here, HERE / "trials.png")
    write_table(records, tried_here, HERE / "table.md")


def choose(name: str, rounds: list[dict[str, Any]]) -> list[str] | None:
    """The trial whose attacked models state fewest hazards on the validation split, of those that keep nine tenths of the
    guarded organism's harmless answers.

    Where none keeps them, the one that keeps most. None where every trial diverged. A defender chooses with attacks on his own
    data: he has no others.
    """
    attackers = team(kinds(HERE / "attacks.yaml"), "validation", CHOOSING_SEEDS, SHARED)
    records = []
    for overrides in trials(rounds):
        record = find(TRIALS, name, overrides)
        if record is None:
            try:
                params = defended(name, overrides, TRAINING_SEED)
                record = {"before": before(params, "validation"), "after": {SHARED: scored(attackers, params)}}
            except UserError as error:
                record = {"failed": str(error)}
            record = {**about(name, overrides), **record}
            keep(TRIALS, record)
        records.append(record)
    finished = [record for record in records if "failed" not in record]
    useful = [record for record in finished if record["before"]["retain_exact"]["value"] >= least_harmless()]
    ranked = sorted(useful, key=harm) or sorted(finished, key=lambda each: -each["before"]["retain_exact"]["value"])
    return ranked[0]["overrides"] if ranked else None


def harm(record: dict[str, Any]) -> tuple[float, float]:
    """Hazards stated after the attacks, and how likely they are where none is."""
    after = record["after"][SHARED]
    return after["exactness"]["value"], -after["harmful_nll"]


def before(params: Any, split: str) -> dict[str, Any]:
    """Scores of an organism as it was released, with intervals."""
    setup, _ = organism()
    evaluation, tokenizer = configuration("safety_tuning").build("judge"), setup.checkpoint.tokenizer
    material = held_out(evaluation, tokenizer, getattr(setup.splits, split))
    return summary_to_json(summarise(evaluate(evaluation, setup.model, params, tokenizer, material, jax.random.key(0))))


def about(name: str, overrides: list[str]) -> dict[str, Any]:
    """What tells one record from others: a guard that was made anew makes all of them anew."""
    return {"defense": name, "overrides": overrides, "start": _start()}


@lru_cache(maxsize=1)
def _start() -> str:
    return digest.of_tree(organism()[1])[:16]


@lru_cache(maxsize=1)
def least_harmless() -> float:
    """The share of exact harmless answers on the validation split that a defense has to keep."""
    return KEEP * before(organism()[1], "validation")["retain_exact"]["value"]


def find(path: Path, name: str, overrides: list[str]) -> dict[str, Any] | None:
    """The record of these settings, if there is one."""
    wanted = about(name, overrides).items()
    return next((each for each in read(path) if each.items() >= wanted), None)


def read(path: Path) -> list[dict[str, Any]]:
    """All records of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: Path, record: dict[str, Any]) -> None:
    """Adds one record."""
    with path.open("a") as out:
        out.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
