"""What a run leaves for people: a table, a figure, and a record of every score."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from immunax.conditions.episode import Episode, Summary, of_prompts, summarise
from immunax.conditions.fall import BELOW, Fall, fall
from immunax.conditions.statistics import Estimate
from immunax.data.chat import Counts
from immunax.data.dialog import Dialog
from immunax.judges.evaluate import Scores
from immunax.runtime import atomic, console
from immunax.runtime.figures import COLOURS, DOTS_AN_INCH, plain_axes
from immunax.runtime.leader import is_leader
from immunax.runtime.metrics import Metrics, json_number
from immunax.stages.kept import ATTACK

RECORDS = "records.jsonl"
FIGURE = "attack.png"
_COSTS = {"steps": ".1f", "samples": ".0f", "flops": ".2e"}
_BEFORE = "before attack"
_SCORE = ("score", "score.low", "score.high")
_KEPT = "answer tokens kept"


def deliver(
    folder: Path,
    title: str,
    episodes: Mapping[str, Episode],
    prompts: Sequence[Dialog],
    metrics: Metrics,
    counts: Mapping[str, Mapping[str, Counts]],
) -> Fall | None:
    """Prints what the attack costs and the table, and writes the records, the figure and the metrics of a set of episodes.

    Args:
      folder: of the run.
      title: of the table and the figure.
      episodes: by model.
      prompts: the judged prompts.
      metrics: gets attack losses and probe scores, under the phase ``attack/MODEL``.
      counts: by model and stream, what became of the dialogs that its numbers rest on.

    Returns:
      What the attack costs, for :func:`costs_to_json`.
    """
    if is_leader():
        write_records(folder / RECORDS, episodes, prompts)
        figure(folder / FIGURE, title, episodes)
    for name, episode in episodes.items():
        phase = f"attack/{name.replace(' ', '_')}"
        metrics.resume(phase, -1)
        for step, loss in enumerate(episode.course.loss, start=1):
            metrics.log(step, phase, {"loss": loss})
        for judge, scores in episode.course.probes.items():
            metrics.resume(f"{phase}/{judge}", -1)
            for step, row in zip(episode.course.probe_steps, scores, strict=True):
                # A judge that does not apply to these prompts has nothing to log.
                if not np.isnan(row).all():
                    told = of_prompts(row)
                    metrics.log(int(step), f"{phase}/{judge}", dict(zip(_SCORE, told, strict=True)))
    fell = fall({name: episode.course for name, episode in episodes.items()})
    if fell is not None:
        costs(title, fell, counts)
    table(title, episodes, counts)
    return fell


def costs(title: str, fell: Fall, counts: Mapping[str, Mapping[str, Counts]]) -> None:
    """Prints what the attack costs until refusals fall below one half: steps, samples and FLOPs, by model, and their ratio.

    A column tells how much of the attack's answers it trained on, where some were cut: a sample is then not a whole one.
    """
    trained = {name: counts[name][ATTACK] for name in fell.costs if ATTACK in counts[name]}
    kept = {name: _percent(each) for name, each in trained.items() if each.share < 1}
    rows = [
        [
            name,
            *(_cost(each[cost], fell.spent[name][cost], form) for cost, form in _COSTS.items()),
            *([kept.get(name, "")] if kept else []),
        ]
        for name, each in fell.costs.items()
    ]
    if fell.ratio:
        first, last = next(iter(fell.costs)), list(fell.costs)[-1]
        least = [fell.spent[last][cost] / max(fell.costs[first][cost].value, 1.0) for cost in _COSTS]
        ratios = [_cost(fell.ratio[cost], most, ".1f") for cost, most in zip(_COSTS, least, strict=True)]
        rows.append(["ratio", *ratios, *([""] if kept else [])])
    console.table(title, [f"until refusals fall below {BELOW:g}", *_COSTS, *([_KEPT] if kept else [])], rows)


def _kept(counts: Mapping[str, Counts]) -> str:
    """The streams of which some answer tokens were lost, each with the share that was kept."""
    return ", ".join(f"{name} {_percent(each)}" for name, each in counts.items() if each.share < 1)


def _percent(counts: Counts) -> str:
    """The share of answer tokens that was kept, rounded down: only all of them is 100%."""
    return f"{math.floor(100 * counts.share)}%"


def _cost(estimate: Estimate, most: float, form: str) -> str:
    """A cost with its interval; what was not reached is more than the most that is known."""
    if np.isnan(estimate.value):
        return "–"
    value = f"> {most:{form}}" if np.isinf(estimate.value) else f"{estimate.value:{form}}"
    if np.isnan(estimate.low):
        return value
    ends = ", ".join("∞" if np.isinf(end) else f"{end:{form}}" for end in (estimate.low, estimate.high))
    return f"{value} [{ends}]"


def costs_to_json(fell: Fall | None) -> dict[str, Any] | None:
    """What the attack costs until refusals fall below one half, for the manifest; an end that was not reached is None."""
    if fell is None:
        return None
    by_model = {name: _estimates_to_json(each) for name, each in fell.costs.items()}
    return {"costs": by_model, "spent": fell.spent, "ratio": _estimates_to_json(fell.ratio)}


def results(episodes: Mapping[str, Episode]) -> dict[str, Any]:
    """Every estimate with its interval, by model and stage, for the manifest."""
    return {
        name: {"before": summary_to_json(summarise(each.before)), "after": summary_to_json(summarise(each.after))}
        for name, each in episodes.items()
    }


def table(title: str, episodes: Mapping[str, Episode], counts: Mapping[str, Mapping[str, Counts]]) -> None:
    """Prints one row a model and stage, every number with its 95% interval; no column for a judge that never applied.

    Args:
      title: of the table.
      episodes: by model.
      counts: by model and stream, what became of the dialogs that its numbers rest on; the column is there where any lost some.
    """
    summaries = [
        (name, stage, summarise(scores))
        for name, episode in episodes.items()
        for stage, scores in ((_BEFORE, episode.before), (_end(episode), episode.after))
    ]
    # Before the attack nothing rests on its dialogs.
    kept = [
        _kept({stream: each for stream, each in counts[name].items() if stage != _BEFORE or stream != ATTACK})
        for name, stage, _ in summaries
    ]
    judged = [(name, estimate) for *_, summary in summaries for name, estimate in summary.judged.items()]
    judges = list(dict.fromkeys(name for name, estimate in judged if not np.isnan(estimate.value)))
    exact = any(not np.isnan(summary.retain_exact.value) for *_, summary in summaries)
    cut = any(summary.answered and summary.answered.unfinished for *_, summary in summaries)
    rows = [
        [
            name,
            stage,
            format(summary.refusal, ".2f"),
            *(format(summary.judged[judge], ".2f") for judge in judges),
            format(summary.harmful_nll, ".2f"),
            format(summary.retain_perplexity, ".2f"),
            *([format(summary.retain_exact, ".2f")] if exact else []),
            *([unfinished(summary)] if cut else []),
            *([lost] if any(kept) else []),
        ]
        for (name, stage, summary), lost in zip(summaries, kept, strict=True)
    ]
    headings = [judge.replace("_", " ") for judge in judges]
    headings = [
        "refusal rate",
        *headings,
        "harmful NLL",
        "retain perplexity",
        *(["retain exact match"] if exact else []),
        *(["unfinished"] if cut else []),
        *([_KEPT] if any(kept) else []),
    ]
    console.table(title, ["model", "stage", *headings], rows)
    for name, stage, summary in summaries:
        for line in missing(summary):
            console.note(f"{name}, {stage}: {line}")


def unfinished(summary: Summary) -> str:
    """How many answers had no end within their tokens, of how many."""
    return f"{summary.answered.unfinished} of {summary.answered.count}" if summary.answered else ""


def missing(summary: Summary) -> list[str]:
    """One line for each reason why answers have no score, none for a judge that never applied."""
    found = summary.answered
    if found is None:
        return []
    lines = []
    if found.unanswered:
        lines.append(
            f"{found.unanswered} of {found.count} answers were still thinking at their last token and are not scored; raise "
            "judge.decoding.max_new_tokens, or set model.template_args.enable_thinking=false where the template reads it"
        )
    there = found.count - found.unanswered
    return lines + [
        f"the judge {name} gave {lost} of {there} answers no score"
        for name, lost in found.unscored.items()
        if 0 < lost < there
    ]


def _end(episode: Episode) -> str:
    steps = len(episode.course.loss)
    return f"after {steps} attack steps" if steps else "after attack"


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """A summary's estimates as ``{name: {value, low, high}}``, NaN is None, and under ``answers`` what became of those."""
    named = {
        "refusal": summary.refusal,
        **summary.judged,
        "harmful_nll": summary.harmful_nll,
        "retain_perplexity": summary.retain_perplexity,
        "retain_exact": summary.retain_exact,
    }
    estimates = _estimates_to_json(named)
    return estimates if summary.answered is None else {**estimates, "answers": summary.answered._asdict()}


def _estimates_to_json(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {part: json_number(number) for part, number in estimate._asdict().items()}
        for name, estimate in estimates.items()
    }


def write_records(path: Path, episodes: Mapping[str, Episode], prompts: Sequence[Dialog]) -> None:
    """Writes one JSON line a model, stage and prompt or example: scores, and no text.

    Args:
      path: of the file, replaced whole.
      episodes: by model.
      prompts: the P judged prompts; a line names one by the first 16 digits of its SHA-256.
    """
    digests = [hashlib.sha256(dialog.question.encode()).hexdigest()[:16] for dialog in prompts]
    with atomic.file(path) as temp, temp.open("w") as out:
        for name, episode in episodes.items():
            for stage, scores in (("before", episode.before), ("after", episode.after)):
                for record in _records(scores, digests):
                    out.write(json.dumps({"model": name, "stage": stage, **record}) + "\n")


def _records(scores: Scores, digests: Sequence[str]):
    for index, prompt in enumerate(digests):
        judged = {judge: json_number(values[index]) for judge, values in scores.judged.items()}
        ends = {} if scores.unfinished is None else {"unfinished": bool(scores.unfinished[index])}
        yield {"kind": "answer", "prompt": prompt, **judged, **ends}
    for kind, part in (("harmful", scores.harmful), ("retain", scores.retain)):
        if part is not None:
            for index, (nll, tokens) in enumerate(zip(part.nll, part.tokens, strict=True)):
                yield {"kind": kind, "example": index, "nll": json_number(nll), "tokens": int(tokens)}
    for index, match in enumerate(() if scores.exact is None else scores.exact):
        yield {"kind": "exact", "example": index, "match": int(match)}


def figure(path: Path, title: str, episodes: Mapping[str, Episode]) -> None:
    """Draws attack loss and refusal rate over attack steps, one line a model.

    Args:
      path: of the PNG.
      title: above both panels.
      episodes: by model.
    """
    # A second of every command's start, where it is needed at the end.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    canvas = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for (name, episode), colour in zip(episodes.items(), COLOURS, strict=False):
        course = episode.course
        left.plot(np.arange(1, len(course.loss) + 1), course.loss, color=colour, label=name)
        if "refusal" in course.probes:
            # A model that is still thinking at each of its last tokens answers no probe.
            rates = [np.nan if np.isnan(row).all() else 1 - np.nanmean(row) for row in course.probes["refusal"]]
            right.plot(course.probe_steps, rates, color=colour, marker="o", label=name)
    right.axhline(BELOW, color="0.6", linewidth=0.8, linestyle=":")
    left.set(xlabel="attack step", ylabel="attack loss (nats per token)")
    right.set(xlabel="attack step", ylabel="refusal rate", ylim=(-0.03, 1.03))
    for axes in (left, right):
        plain_axes(axes)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False)
    canvas.suptitle(title, fontsize=11)
    with atomic.file(path) as temp:
        canvas.savefig(temp, dpi=DOTS_AN_INCH, format="png")
