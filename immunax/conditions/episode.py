"""One model under one attack: its scores before and after, and what happened along the way."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from immunax.conditions.statistics import NOTHING, Estimate, mean, rate, ratio
from immunax.judges.evaluate import Scores
from immunax.judges.likelihood import Likelihood
from immunax.runtime.metrics import json_number


class Course(NamedTuple):
    """An attack's course.

    Attributes:
      loss: ``[K]``, before each attack step, nats per answer token.
      probe_steps: ``[S]``, attack steps done when probes were answered, from 0.
      probes: by judge, ``[S, P]`` scores.
      samples: ``[S]``, different dialogs that it had trained on by then.
      flops: ``[S]``, what it had spent by then.
    """

    loss: np.ndarray
    probe_steps: np.ndarray
    probes: dict[str, np.ndarray]
    samples: np.ndarray
    flops: np.ndarray


class Episode(NamedTuple):
    """Scores before and after an attack, and its course."""

    before: Scores
    after: Scores
    course: Course


class Answered(NamedTuple):
    """What became of the answers to the held-out prompts.

    Attributes:
      count: P, answers that were asked for.
      unfinished: of them, those without an end within the tokens that an answer gets; judged as far as they go.
      unanswered: of these, those that were still thinking; no judge scores them.
      unscored: by judge, how many of the answers that there are it gave no score.
    """

    count: int
    unfinished: int
    unanswered: int
    unscored: dict[str, int]


class Summary(NamedTuple):
    """What a table shows of one model at one stage, each with its 95% interval.

    Attributes:
      refusal: share of held-out harmful prompts that it refuses.
      judged: mean score of each other judge; 1 is harmful.
      harmful_nll: of held-out harmful answers, nats per token.
      retain_perplexity: of held-out harmless answers.
      retain_exact: share of those that greedy decoding gives word for word, where that was counted.
      answered: what became of the answers, None where none was asked for.
    """

    refusal: Estimate
    judged: dict[str, Estimate]
    harmful_nll: Estimate
    retain_perplexity: Estimate
    retain_exact: Estimate = NOTHING
    answered: Answered | None = None


def of_prompts(scores: np.ndarray) -> Estimate:
    """The mean of a judge's scores, with its interval over prompts.

    Scores that are all 0 or 1 have the exact one: a bootstrap of forty zeros would be sure of 0.

    Args:
      scores: ``[N]`` in [0, 1], 1 is harmful; NaN are left out.
    """
    return rate(scores) if np.isin(scores[~np.isnan(scores)], (0.0, 1.0)).all() else mean(scores)


def summarise(scores: Scores) -> Summary:
    """Intervals by prompt for what is judged, by example for what is given."""
    compliance = scores.judged.get("refusal")
    perplexity = _per_token(scores.retain)
    return Summary(
        NOTHING if compliance is None else rate(1 - compliance),
        {name: of_prompts(values) for name, values in scores.judged.items() if name != "refusal"},
        _per_token(scores.harmful),
        Estimate(*(float(np.exp(value)) for value in perplexity)),
        NOTHING if scores.exact is None else rate(scores.exact),
        _answered(scores),
    )


def _answered(scores: Scores) -> Answered | None:
    if scores.unfinished is None or scores.unanswered is None:
        return None
    there = ~scores.unanswered
    unscored = {name: int(np.isnan(values[there]).sum()) for name, values in scores.judged.items()}
    return Answered(len(there), int(scores.unfinished.sum()), int(scores.unanswered.sum()), unscored)


def _per_token(part: Likelihood | None) -> Estimate:
    return NOTHING if part is None else ratio(part.nll, part.tokens)


def to_json(episode: Episode) -> dict[str, Any]:
    """A JSON-able copy; NaN is None."""
    return {
        "before": _scores_to_json(episode.before),
        "after": _scores_to_json(episode.after),
        "course": {
            "loss": _numbers(episode.course.loss),
            "probe_steps": episode.course.probe_steps.tolist(),
            "probes": {name: [_numbers(row) for row in values] for name, values in episode.course.probes.items()},
            "samples": _numbers(episode.course.samples),
            "flops": _numbers(episode.course.flops),
        },
    }


def from_json(record: Mapping[str, Any]) -> Episode:
    """The inverse of :func:`to_json`."""
    course = record["course"]
    return Episode(
        _scores_from_json(record["before"]),
        _scores_from_json(record["after"]),
        Course(
            _array(course["loss"]),
            np.asarray(course["probe_steps"]),
            {name: np.stack([_array(row) for row in rows]) for name, rows in course["probes"].items()},
            _array(course["samples"]),
            _array(course["flops"]),
        ),
    )


def _scores_to_json(scores: Scores) -> dict[str, Any]:
    def likelihood(part: Likelihood | None):
        return None if part is None else {"nll": _numbers(part.nll), "tokens": part.tokens.tolist()}

    return {
        "judged": {name: _numbers(values) for name, values in scores.judged.items()},
        "harmful": likelihood(scores.harmful),
        "retain": likelihood(scores.retain),
        "exact": None if scores.exact is None else _numbers(scores.exact),
        "unfinished": None if scores.unfinished is None else scores.unfinished.tolist(),
        "unanswered": None if scores.unanswered is None else scores.unanswered.tolist(),
    }


def _scores_from_json(record: Mapping[str, Any]) -> Scores:
    def likelihood(part):
        return None if part is None else Likelihood(_array(part["nll"]), _array(part["tokens"]))

    judged = {name: _array(values) for name, values in record["judged"].items()}
    exact = None if record["exact"] is None else _array(record["exact"])
    ends = (None if record[name] is None else np.array(record[name], bool) for name in ("unfinished", "unanswered"))
    return Scores(judged, likelihood(record["harmful"]), likelihood(record["retain"]), exact, *ends)


def _numbers(values: np.ndarray) -> list[float | None]:
    return [json_number(value) for value in values]


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)
