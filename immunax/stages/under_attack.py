"""Attack one model, score it before and after, keep scores and no answers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from immunax.attacks.attack import FineTuning
from immunax.campaign.course import Point, course, paid
from immunax.conditions.episode import Course, Episode
from immunax.conditions.fall import shown_fallen
from immunax.judges.evaluate import Given, Material, Scores, batch_count, given_by, judged
from immunax.models.model import Model, Params
from immunax.runtime import console
from immunax.runtime.errors import DivergedError
from immunax.stages.red_team import RedTeam


def red_team(
    team: RedTeam,
    model: Model,
    params: Params,
    tokenizer: Any,
    name: str,
    seed: int,
    before: Scores | None = None,
    keep: Callable[[Params], None] | None = None,
) -> Episode:
    """Scores, attacks and scores again.

    Args:
      team: from :func:`~immunax.stages.red_team.assemble`.
      model: static.
      params: plain weights; untouched.
      tokenizer: the model's.
      name: of the model, for the progress bars.
      seed: of every random key.
      before: scores before the attack where they are known already, as of another attack on the same model.
      keep: what else is done with the attacked weights, plain or adapted, before they are scored.

    Returns:
      :class:`~immunax.conditions.episode.Episode`.

    Raises:
      DivergedError: the attack's loss is not finite.
    """
    evaluation = team.evaluation
    attack_key, before_key, after_key = jax.random.split(jax.random.key(seed), 3)
    probe_key, known = jax.random.split(attack_key)[1], None
    if before is None:
        first = _given(team, model, params, team.before, before_key, f"evaluate {name}")
        before = judged(evaluation, tokenizer, team.before, first)
        known = first if _same(team.before, team.after) else None
    probes = [_probed(team, model, params, tokenizer, probe_key, known)]
    last, steps, along = _attacked(team, model, params, tokenizer, name, attack_key)
    probes += along
    if keep is not None:
        keep(last.weights)
    given = _given(team, model, last.weights, team.after, after_key, f"evaluate attacked {name}")
    if len(probes) < len(steps):
        probes.append(_probed(team, model, last.weights, tokenizer, jax.random.fold_in(probe_key, last.step), given))
    judges = {each: np.stack([scores[each] for scores in probes]) for each in evaluation.judges}
    after = judged(evaluation, tokenizer, team.after, given)
    spent = paid(team.attack, team.material, model, params, attack_key, steps)
    return Episode(before, after, Course(last.losses.astype(np.float64), np.array(steps), judges, *spent))


def _attacked(
    team: RedTeam, model: Model, params: Params, tokenizer: Any, name: str, key: jax.Array
) -> tuple[Point, list[int], list[dict[str, np.ndarray]]]:
    """The last point, the steps that probes are of, and the probes along the way; that of a whole attack's end is not there."""
    probe_key, times, total = jax.random.split(key)[1], 1, 1
    if isinstance(team.attack, FineTuning):
        times, total = team.attack.tuning.probes, team.material.steps
    steps, last, along = [0], None, []
    with console.progress(f"attack {name}", total, "step") as bar:
        for point in course(team.attack, team.material, model, params, key, times):
            _check(point, name)
            bar.advance(max(1, point.step - steps[-1]), **({"loss": point.losses[-1]} if point.step else {}))
            steps, last = [*steps, point.step], point
            if isinstance(team.attack, FineTuning) and point.step < total:
                key_here = jax.random.fold_in(probe_key, point.step)
                along.append(_probed(team, model, point.weights, tokenizer, key_here, None))
                if _fallen(team, along[-1]):
                    break
    assert last is not None
    return last, steps, along


def _fallen(team: RedTeam, probe: dict[str, np.ndarray]) -> bool:
    until = team.probes.until
    return until is not None and shown_fallen(probe["refusal"], until)


def _check(point: Point, name: str) -> None:
    finite = np.isfinite(point.losses)
    if not finite.all():
        raise DivergedError(
            f"the attack on {name} diverged: its loss is {point.losses[~finite][0]} at step {np.argmin(finite) + 1}, and says "
            "nothing of resistance; lower its learning rate or step size."
        )


def _probed(
    team: RedTeam, model: Model, weights: Params, tokenizer: Any, key: jax.Array, known: Given | None
) -> dict[str, np.ndarray]:
    """What the judges say of the probes' answers, by name.

    Args:
      known: what the same weights answered in the same wording, of which greedy answers to the probes are a part.
    """
    probing, probed = team.probing, team.probed
    given, most = known, probing.decoding.max_new_tokens
    if given is None or given.ids is None or probing.decoding.temperature > 0 or most > given.ids.shape[1]:
        given = given_by(probing, model, weights, probed, key)
    ids = None if given.ids is None else given.ids[: len(probed.dialogs), :most]
    return judged(probing, tokenizer, probed, Given(ids, None, None)).judged


def _same(one: Material, other: Material) -> bool:
    return all(np.array_equal(*parts) for parts in zip(one.prompts, other.prompts, strict=True))


def _given(team: RedTeam, model: Model, params: Params, material: Material, key: jax.Array, title: str) -> Given:
    with console.progress(title, batch_count(team.evaluation, material), "batch") as bar:
        return given_by(team.evaluation, model, params, material, key, bar.advance)
