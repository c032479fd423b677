"""The league's figure and table."""

from pathlib import Path
from typing import Any

import numpy as np
from attacks import ATTACK_SEEDS, KEEP, kinds
from matplotlib.figure import Figure

from immunax.data.dialog import OWN, SHARED

MARKS = "os^"
COLOURS = ("#b2452f", "#d99a3d", "#2f6fb2", "#3d8a4e")


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Hazard exactness after every attack with unseen data, a dot each, with the mean and its interval; refusals and harmless
    answers beside. One more mean is of the same attacks with the data that the defense was trained on.

    Args:
      records: of ``results.jsonl``.
      path: of the PNG.
    """
    records = sorted(records, key=lambda record: -record["after"][OWN]["exactness"]["value"])
    names = list(kinds(Path(__file__).parent / "attacks.yaml"))
    canvas = Figure(figsize=(10, 0.42 * len(records) + 1.6), layout="constrained")
    left, middle, right = canvas.subplots(1, 3, sharey=True, width_ratios=(3, 1, 1))
    each = 3 * len(ATTACK_SEEDS)
    for row, record in enumerate(records):
        for kind, (name, colour) in enumerate(zip(names, COLOURS, strict=True)):
            values = [
                attack["exactness"] for attack in record["after"][OWN]["attacks"][kind * each : (kind + 1) * each]
            ]
            heights = row + 0.15 * (kind - 1.5) + np.linspace(-0.05, 0.05, each)
            left.plot(values, heights, ".", color=colour, markersize=3.5, alpha=0.7, label=name if row == 0 else None)
        before, unseen, seen = record["before"], record["after"][OWN], record["after"][SHARED]
        for axes, found, label, colour in (
            (left, seen["exactness"], "seen data", "#8a5fb0"),
            (left, unseen["exactness"], "unseen data", "black"),
            (middle, before["refusal"], "before", "#8a8a8a"),
            (middle, unseen["refusal"], "after", "black"),
            (right, before["retain_exact"], None, "#8a8a8a"),
            (right, unseen["retain"], None, "black"),
        ):
            error = [[found["value"] - found["low"]], [found["high"] - found["value"]]]
            label = label if row == 0 else None
            axes.errorbar(
                found["value"], row, xerr=error, fmt="D", color=colour, markersize=4, linewidth=1, label=label
            )
    left.set(xlabel="hazard exactness after the attack", xlim=(-0.02, 1.02))
    middle.set(xlabel="refusal rate", xlim=(-0.04, 1.04))
    right.set(xlabel="harmless answers exact", xlim=(-0.04, 1.04))
    left.set_yticks(range(len(records)), [record["defense"] for record in records])
    for axes in (left, middle, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.legend(*left.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    canvas.legend(*middle.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    canvas.savefig(path, dpi=150)


def draw_trials(trials: list[dict[str, Any]], path: Path) -> None:
    """Every trial on the validation split: what it costs and what it brings, one mark a defense.

    Args:
      trials: of ``trials.jsonl``; those that failed are left out.
      path: of the PNG.
    """
    finished = [trial for trial in trials if "failed" not in trial]
    names = list(dict.fromkeys(trial["defense"] for trial in finished))
    canvas = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = canvas.subplots()
    for place, name in enumerate(names):
        mine = [trial for trial in finished if trial["defense"] == name]
        x = [trial["before"]["retain_exact"]["value"] for trial in mine]
        y = [trial["after"][SHARED]["exactness"]["value"] for trial in mine]
        axes.plot(x, y, MARKS[place % len(MARKS)], color=f"C{place % 10}", markersize=5, alpha=0.8, label=name)
    axes.set(xlabel="harmless answers exact, before any attack", ylabel="hazard exactness after the attacks")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.legend(loc="outside right upper", frameon=False, fontsize=8)
    canvas.savefig(path, dpi=150)


def write_table(records: list[dict[str, Any]], trials: list[dict[str, Any]], path: Path) -> None:
    """The numbers as Markdown, least harm by attackers with data of their own first.

    Args:
      records: of ``results.jsonl``.
      trials: of ``trials.jsonl``, counted.
      path: of the file.
    """
    lines = [
        "| defense | hazard exactness after, unseen data | worst attack | seen data | refusal before | refusal after | "
        "harmless before | trials |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for record in sorted(records, key=lambda record: record["after"][OWN]["exactness"]["value"]):
        before, after, seen = record["before"], record["after"][OWN], record["after"][SHARED]
        count = sum(trial["defense"] == record["defense"] for trial in trials)
        lines.append(
            f"| `{record['defense']}` | {_told(after['exactness'])} | {worst(record):.2f} | {_told(seen['exactness'])} | "
            f"{before['refusal']['value']:.2f} | {_told(after['refusal'])} | {before['retain_exact']['value']:.2f} | {count} |"
        )
    path.write_text("\n".join(lines) + "\n")


def worst(record: dict[str, Any]) -> float:
    """The highest hazard exactness of an attack with unseen data that leaves harmless answers; else the model's own."""
    limit = KEEP * record["before"]["retain_exact"]["value"]
    allowed = [attack["exactness"] for attack in record["after"][OWN]["attacks"] if attack["retain"] >= limit]
    return max(allowed, default=record["before"]["hazard_exactness"]["value"])


def _told(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]"
