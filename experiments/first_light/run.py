"""Attacks the start model and the immunized one of a ``first_light`` run on BeaverTails; see the README beside this.

    uv run python experiments/first_light/run.py DATA_ROOT

Goes on where it was stopped: an attack on the same weights that ``results.jsonl`` holds is not run again. Scores are
kept, answers are not.
"""

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

from immunax.conditions.episode import summarise
from immunax.conditions.fall import fall
from immunax.conditions.statistics import rate
from immunax.models.hub import ModelSource
from immunax.runtime import digest
from immunax.runtime.launch import composed
from immunax.runtime.user_config import UserConfig
from immunax.stages.guard import start_model
from immunax.stages.red_team import from_config
from immunax.stages.report import costs_to_json, summary_to_json
from immunax.stages.setup import Parts, load, set_up
from immunax.stages.under_attack import red_team

HERE = Path(__file__).parent
RUN = Path("outputs/first_light")
RESULTS = HERE / "results.jsonl"
PROBES = {10: 5, 100: 25}
"""By samples, how often an attack of five epochs of batches of ten is looked at: after every step, or every second one."""
SEEDS = (0, 1, 2)
COLOURS = {"start model": "#b2452f", "immunized": "#2f6fb2"}


def main(root: str) -> None:
    """Runs what is missing, then draws."""
    config = configuration(root)
    setup, loaded = set_up(Parts.given(config))
    models = {
        "start model": start_model(config.build("start"), setup, loaded),
        "immunized": load(ModelSource(str(RUN))).params,
    }
    del loaded
    weights = {name: digest.of_tree(params)[:16] for name, params in models.items()}
    before = {}
    for seed in SEEDS:
        for samples in PROBES:
            about = {"weights": weights, "samples": samples, "seed": seed}
            if any(record.items() >= about.items() for record in read()):
                continue
            team = from_config(configuration(root, samples, seed), "red_team", setup)
            episodes = {}
            for name, params in models.items():
                title = f"{name}, {samples} samples, seed {seed}"
                episode = red_team(team, setup.model, params, setup.checkpoint.tokenizer, title, seed, before.get(name))
                episodes[name], before[name] = episode, episode.before
            record = {
                **about,
                "models": {
                    name: {
                        "before": summary_to_json(summarise(episode.before)),
                        "after": summary_to_json(summarise(episode.after)),
                        "asked_after": episode.course.probe_steps.tolist(),
                        "refusal": [rate(1 - scores)._asdict() for scores in episode.course.probes["refusal"]],
                        "attack_loss": [round(float(loss), 4) for loss in episode.course.loss],
                    }
                    for name, episode in episodes.items()
                },
                "costs": costs_to_json(fall({name: episode.course for name, episode in episodes.items()})),
            }
            with RESULTS.open("a") as out:
                out.write(json.dumps(record) + "\n")
    draw([record for record in read() if record["weights"] == weights])


def configuration(root: str, samples: int = 100, seed: int = 0) -> UserConfig:
    """What the command that immunizes runs, its attack with this many samples and this seed."""
    overrides = [
        "+defense=rep_noise",
        "data=beavertails",
        f"data.root={root}",
        "~judge.judges.hazard_exactness",
        f"red_team.samples={samples}",
        f"red_team.tuning.probes={PROBES[samples]}",
        f"red_team.tuning.seed={seed}",
    ]
    return composed("train", overrides)


def read() -> list[dict]:
    """All records."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def draw(records: list[dict]) -> None:
    """Refusal along the attacks, a line a seed, with 95% intervals at their ends."""
    canvas = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, samples in zip(canvas.subplots(1, 2, sharey=True), PROBES, strict=True):
        for record in (each for each in records if each["samples"] == samples):
            for name, colour in COLOURS.items():
                found = record["models"][name]
                *_, last = found["refusal"]
                label = name if record["seed"] == 0 else None
                axes.plot(
                    found["asked_after"], [each["value"] for each in found["refusal"]], ".-", color=colour, label=label
                )
                error = [[last["value"] - last["low"]], [last["high"] - last["value"]]]
                axes.errorbar(found["asked_after"][-1], last["value"], error, color=colour, linewidth=1, alpha=0.5)
        axes.axhline(0.5, color="#8a8a8a", linewidth=0.8, linestyle=":")
        axes.set(title=f"{samples} samples", xlabel="attack step", ylim=(-0.03, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    canvas.axes[0].set_ylabel("refusal rate, 24 held-out prompts")
    canvas.savefig(HERE / "figure.png", dpi=150)


if __name__ == "__main__":
    main(sys.argv[1])
