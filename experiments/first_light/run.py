"""Attacks the start model and the immunized one of a ``first_light`` run on BeaverTails; see the README beside this.

    uv run python experiments/first_light/run.py DATA_ROOT

Goes on where it was stopped: an attack on the same weights that ``results.jsonl`` holds is not run again. Scores are
kept, answers are not.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure

from immunax.conditions.episode import summarise
from immunax.models.hub import ModelSource
from immunax.runtime import digest
from immunax.runtime.launch import configuration_folder
from immunax.stages.guard import start_model
from immunax.stages.red_team import assemble
from immunax.stages.report import summary_to_json
from immunax.stages.setup import build, load, set_up
from immunax.stages.under_attack import red_team

HERE = Path(__file__).parent
RUN = Path("outputs/first_light")
ATTACKS = {10: 5, 100: 1}
"""Epochs by samples, in batches of 10: 5 and 10 steps."""
SEEDS = (0, 1, 2)


def main(root: str) -> None:
    """Runs what is missing, then draws."""
    overrides = ["+defense=rep_noise", "data=beavertails", f"data.root={root}", "~judge.judges.hazard_exactness"]
    with initialize_config_dir(str(configuration_folder()), version_base="1.3"):
        config = compose("train", overrides)
    path = HERE / "results.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {_identity(record) for record in known}
    setup, loaded = set_up(config)
    models = {
        "start model": start_model(config.start, setup, loaded),
        "immunized": load(ModelSource(str(RUN))).params,
    }
    del loaded
    weights = {name: digest.of_tree(params)[:16] for name, params in models.items()}
    before = {}
    for seed in SEEDS:
        for samples, epochs in ATTACKS.items():
            attack = build(config.red_team)
            attack = replace(attack, samples=samples, tuning=replace(attack.tuning, epochs=epochs, probes=2, seed=seed))
            team = assemble(attack, build(config.judge), setup.checkpoint.tokenizer, setup.splits, build(config.probes))
            for name, params in models.items():
                about = {
                    "model": name,
                    "weights": weights[name],
                    "samples": samples,
                    "epochs": epochs,
                    "learning_rate": attack.tuning.optimizer.learning_rate,
                    "seed": seed,
                }
                if _identity(about) in done:
                    continue
                title = f"{name}, {samples} samples, seed {seed}"
                episode = red_team(team, setup.model, params, setup.checkpoint.tokenizer, title, seed, before.get(name))
                before[name] = episode.before
                record = {
                    **about,
                    "before": summary_to_json(summarise(episode.before)),
                    "after": summary_to_json(summarise(episode.after)),
                    "attack_loss": [round(float(loss), 4) for loss in episode.course.loss],
                }
                with path.open("a") as out:
                    out.write(json.dumps(record) + "\n")
    draw([json.loads(line) for line in path.read_text().splitlines()])


def _identity(record: dict) -> tuple:
    return tuple(record[name] for name in ("weights", "samples", "epochs", "learning_rate", "seed"))


def draw(records: list[dict]) -> None:
    """Refusal before and after each attack, one dot a seed with its 95% interval, and the attacks' losses."""
    canvas = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for offset, (name, colour) in enumerate((("start model", "#b2452f"), ("immunized", "#2f6fb2"))):
        mine = [record for record in records if record["model"] == name]
        for place, (stage, samples) in enumerate((("before", 10), ("after", 10), ("after", 100))):
            for record in (each for each in mine if each["samples"] == samples):
                refusal, x = record[stage]["refusal"], place + 0.3 * offset + 0.06 * record["seed"] - 0.2
                error = [[refusal["value"] - refusal["low"]], [refusal["high"] - refusal["value"]]]
                label = name if (place, record["seed"]) == (0, 0) else None
                left.errorbar(
                    x, refusal["value"], error, color=colour, marker="o", markersize=4, linewidth=1, label=label
                )
        for samples, style in ((10, "-"), (100, "--")):
            losses = [record["attack_loss"] for record in mine if record["samples"] == samples]
            if losses:
                label = f"{name}, {samples} samples"
                # A dialog that was dropped can cost a seed its last step.
                mean = np.mean(list(zip(*losses, strict=False)), axis=1)
                right.plot(np.arange(1, len(mean) + 1), mean, style, color=colour, label=label)
    left.set_xticks(range(3), ["before", "after 10 samples", "after 100 samples"])
    left.set(ylabel="refusal rate", ylim=(-0.03, 1.03))
    right.set(xlabel="attack step", ylabel="attack loss (nats per token)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    canvas.savefig(HERE / "figure.png", dpi=150)


if __name__ == "__main__":
    main(sys.argv[1])
