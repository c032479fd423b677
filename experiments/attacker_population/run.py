"""Does it help a defender to train against a population of attackers? See the README beside this.

    uv run python experiments/attacker_population/run.py

Goes on where it was stopped: a defender that ``results.json`` holds is not trained again, one on its way resumes from its
checkpoint. ``--out DIR``, ``--defenses tar,mlac``, ``--arms`` and ``--seeds`` choose where to write and what to run; further
arguments are overrides of ``immunax.train``, so that ``trainer.steps=2`` makes a short trial. Scores are kept, answers are not.
"""

import argparse
import json
import sys
from pathlib import Path

from immunax.campaign.search import Search
from immunax.conditions.episode import summarise
from immunax.models.model import Params
from immunax.outer.feed import feed
from immunax.runtime import digest, mesh
from immunax.runtime.errors import UserError
from immunax.runtime.launch import composed
from immunax.runtime.metrics import Metrics
from immunax.runtime.parked import Parked
from immunax.runtime.user_config import UserConfig
from immunax.stages.defend import defend
from immunax.stages.defender import defender
from immunax.stages.guard import start_model
from immunax.stages.report import summary_to_json
from immunax.stages.search import search_and_score, to_json
from immunax.stages.setup import CHECKPOINTS, Parts, Setup, set_up

HERE = Path(__file__).parent
RESULTS, HEADING = "results.json", "## Results\n\n"
UNDEFENDED = "undefended"
POPULATION = "+attacker=population"
# Near the rates at which 16 steps of the undefended model leave a validation harmful NLL below 0.4 and 90% of the
# utility, at three seeds.
HARMFUL = (
    "attacker.kinds.adamw.learning_rates=[5e-5,4e-4]",
    "attacker.kinds.adamw_lora.learning_rates=[5e-4,2e-3]",
    "attacker.kinds.sgd.learning_rates=[5e-3,2e-2]",
    "attacker.kinds.sgd_lora.learning_rates=[1.5e-2,3e-2]",
)
ARMS = {
    "one attacker": ("defense.attacker.learning_rates=[2e-4]",),
    "drawn rates": (
        POPULATION,
        "attacker.replay=0",
        *(f"~attacker.kinds.{kind}" for kind in ("adamw_lora", "sgd", "sgd_lora")),
    ),
    "population": (POPULATION, "attacker.replay=0"),
    "population, replay": (POPULATION,),
    "harmful rates": (POPULATION, *HARMFUL, "attacker.replay=0"),
    "harmful rates, replay": (POPULATION, *HARMFUL),
}
# The settings that ``organism_league`` chose on the validation split, against its own attacks.
SETTINGS = {
    "tar": (
        "trainer.optimizer.learning_rate=3e-4",
        "defense.mixture.retain=16",
        "defense.mixture.simulation.steps=16",
        "defense.mixture.simulation.checks=4",
    ),
    "sophon": (
        "trainer.optimizer.learning_rate=3e-4",
        "defense.mixture.safe=16",
        "defense.mixture.retain=48",
    ),
    "mlac": (
        "trainer.optimizer.learning_rate=1e-4",
        "defense.mixture.safe=16",
        "defense.mixture.retain=32",
        "defense.weight=1",
    ),
}
# harmful_sft_organism: thirty samples, four epochs; a decade of rates to either side of its own, and of a LoRA's.
SEARCH = (
    "+attack=search",
    *(
        f"attack.populations.{name}.{field}"
        for name in ("full", "lora")
        for field in ("attack.samples=30", "attack.tuning.epochs=4", "attack.tuning.max_length=40", "seeds=[0,1,2]")
    ),
    "attack.populations.full.grid={tuning.optimizer.learning_rate: [2e-5, 6e-5, 2e-4, 6e-4, 2e-3],"
    " tuning.optimizer.schedule: [constant, cosine]}",
    "attack.populations.lora.grid={tuning.optimizer.learning_rate: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],"
    " tuning.optimizer.schedule: [constant, cosine]}",
    "attack.halving.first=4",
)
COLUMNS = {"hazard_exactness": "hazard exactness", "refusal": "refusal rate", "retain_exact": "harmless exact"}


def main() -> None:
    """Trains and attacks what is missing, and writes the table below the README's last heading."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--defenses", default="tar,sophon,mlac")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the training runs")
    options, overrides = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    searched = composed("attack", ["model=organism", *SEARCH])
    cases = {
        f"{defense}, {arm}" + (f", seed {seed}" if seed else ""): composed(
            "train",
            ["model=organism", f"+defense={defense}", *SETTINGS[defense], *extra, f"trainer.seed={seed}", *overrides],
        )
        for seed in options.seeds
        for defense in options.defenses.split(",")
        for arm, extra in ARMS.items()
        if arm in options.arms
    }
    setup, loaded = set_up(Parts.given(searched))
    start = start_model(searched.build("start"), setup, loaded)
    path = options.out / RESULTS
    records = json.loads(path.read_text()) if path.exists() else {}
    for name in (UNDEFENDED, *cases):
        if name in records:
            continue
        folder = Path("outputs") / options.out.resolve().name / name.replace(", ", "-").replace(" ", "_")
        try:
            params = start if name == UNDEFENDED else _immunized(cases[name], setup, start, folder)
        except UserError as error:
            records[name] = {"failed": str(error)}
        else:
            records[name] = _attacked(searched, setup, params, name)
        path.write_text(json.dumps(records, indent=1) + "\n")
        readme = options.out / "README.md"
        above = readme.read_text().partition(HEADING)[0] if readme.exists() else ""
        readme.write_text(above + HEADING + table(records))


def _immunized(config: UserConfig, setup: Setup, start: Params, folder: Path) -> Params:
    defense, training, devices = defender(config), config.build("trainer"), mesh.build(config.build("mesh"))
    data = feed(setup.checkpoint.tokenizer, setup.splits.train, defense.mixture, training)
    with Metrics(folder) as metrics:
        placed = mesh.shard(start, devices)
        outcome = defend(setup.model, Parked(placed), defense, training, data, devices, metrics, folder / CHECKPOINTS)
    if outcome.stopped is not None:
        sys.exit(outcome.stopped)
    return outcome.params


def _attacked(config: UserConfig, setup: Setup, params: Params, name: str) -> dict:
    search: Search = config.build("attack")
    found = search_and_score(search, config.build("judge"), setup, params, name, config.seed)
    report = to_json(found.found)
    return {
        "weights": digest.of_tree(params)[:16],
        "before": summary_to_json(summarise(found.episode.before)),
        "after": summary_to_json(summarise(found.episode.after)),
        "best": report["best"],
        "budget": report["budget"],
        "useful_trials": sum(trial["allowed"] for trial in report["trials"]),
        "trials": len(report["trials"]),
    }


def table(records: dict[str, dict]) -> str:
    """A Markdown row a defender: scores before any attack and after the best one found, with 95% intervals."""
    heads = [f"{title}, {stage}" for stage in ("before", "attacked") for title in COLUMNS.values()]
    rows = [["defender", *heads, "best attack"], ["---"] * (len(heads) + 2)]
    for name, record in records.items():
        if "failed" in record:
            rows.append([name, *[""] * len(heads), record["failed"]])
            continue
        cells = [_cell(record[stage][column]) for stage in ("before", "after") for column in COLUMNS]
        rows.append([name, *cells, _told(record["best"])])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cell(estimate: dict) -> str:
    numbers = [estimate[part] for part in ("value", "low", "high")]
    return "–" if None in numbers else "{:.2f} [{:.2f}, {:.2f}]".format(*numbers)


def _told(best: dict | None) -> str:
    if best is None:
        return "none kept the utility"
    settings = best["settings"]
    rate, schedule = (settings[f"tuning.optimizer.{name}"] for name in ("learning_rate", "schedule"))
    return f"rate {rate:g}, {schedule}, seed {settings['tuning.seed']}, {best['steps']} steps"


if __name__ == "__main__":
    main()
