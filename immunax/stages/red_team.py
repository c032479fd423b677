"""Attack one model, score it before and after, keep scores and no answers."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from immunax.attacks.attack import Attack, AttackData
from immunax.attacks.prepare import prepare
from immunax.conditions.episode import Course, Episode
from immunax.data.chat import Report
from immunax.data.dialog import Splits
from immunax.data.prompts import Prompts
from immunax.judges.evaluate import Evaluation, Material, Scores, answers, batch_count, evaluate, held_out, judge
from immunax.models.model import Model, Params
from immunax.runtime import console


@dataclass(frozen=True)
class Probes:
    """What an attacked model is asked along the attack.

    Attributes:
      prompts: how many of the held-out prompts.
      max_new_tokens: the most tokens of an answer.
    """

    prompts: int = 16
    max_new_tokens: int = 24


@dataclass(frozen=True)
class RedTeam:
    """An attack and how its success is measured, on encoded data, ready for any number of models.

    Attributes:
      attack: the attack.
      evaluation: judges and amounts.
      before: held-out material as users would put it.
      after: the same as the attacker puts it to the attacked model.
      data: what the attack trains on.
      report: how many of its dialogs were kept, cut and dropped.
    """

    attack: Attack
    evaluation: Evaluation
    before: Material
    after: Material
    data: AttackData
    report: Report


def assemble(attack: Attack, evaluation: Evaluation, tokenizer: Any, splits: Splits, probes: Probes) -> RedTeam:
    """Encodes everything once.

    Args:
      attack: the attack.
      evaluation: judges and amounts.
      tokenizer: the model's.
      splits: training data of the attack, and held-out data.
      probes: what is answered along the attack.

    Raises:
      UserError: the data lack what the attack or the evaluation needs.
    """
    split = getattr(splits, evaluation.split)
    before = held_out(evaluation, tokenizer, split)
    after = held_out(evaluation, tokenizer, split, attack.evaluation)
    probed = Prompts(*(part[: probes.prompts] for part in after.prompts))
    decoding = replace(evaluation.decoding, max_new_tokens=probes.max_new_tokens)
    data, report = prepare(attack, tokenizer, splits, probed, decoding)
    return RedTeam(attack, evaluation, before, after, data, report)


def lengths(name: str, team: RedTeam) -> dict[str, int]:
    """The longest sequences that an attack and its evaluation may make, in tokens, by the fields that set them.

    Args:
      name: the attack's group in the configuration.
      team: from :func:`assemble`.
    """
    evaluation = team.evaluation
    return {
        f"{name}.tuning.max_length": team.attack.tuning.max_length,
        "judge.max_length + judge.decoding.max_new_tokens": evaluation.max_length + evaluation.decoding.max_new_tokens,
    }


def red_team(
    team: RedTeam, model: Model, params: Params, tokenizer: Any, name: str, seed: int, before: Scores | None = None
) -> Episode:
    """Scores, attacks and scores again.

    Args:
      team: from :func:`assemble`.
      model: static.
      params: plain weights; untouched.
      tokenizer: the model's.
      name: of the model, for the progress bars.
      seed: of every random key.
      before: scores before the attack where they are known already, as of another attack on the same model.

    Returns:
      :class:`~immunax.conditions.episode.Episode`.
    """
    attack_key, before_key, after_key = jax.random.split(jax.random.key(seed), 3)
    if before is None:
        before = _evaluate(team.evaluation, model, params, tokenizer, team.before, before_key, f"evaluate {name}")
    steps = team.data.batches.tokens.shape[0]
    with console.progress(f"attack {name}", steps, "step") as bar:
        run = jax.jit(partial(team.attack.run, model, report=lambda loss: bar.advance(loss=float(loss))))
        tampered = run(params, team.data, attack_key)
        trace = jax.tree.map(np.asarray, jax.block_until_ready(tampered.trace))
    if not np.isfinite(trace.loss).all():
        console.note(f"the attack on {name} diverged: its loss is not finite; its scores say nothing of resistance.")
    after = _evaluate(
        team.evaluation, model, tampered.params, tokenizer, team.after, after_key, f"evaluate attacked {name}"
    )
    probed = team.after.dialogs[: trace.probe_answers.shape[1]]
    each = [judge(team.evaluation, probed, answers(tokenizer, ids, team.data.stop)) for ids in trace.probe_answers]
    probes = {judge_name: np.stack([scores[judge_name] for scores in each]) for judge_name in team.evaluation.judges}
    return Episode(before, after, Course(np.asarray(trace.loss, np.float64), trace.probe_steps, probes))


def _evaluate(evaluation, model, params, tokenizer, material: Material, key, title: str):
    with console.progress(title, batch_count(evaluation, material), "batch") as bar:
        return evaluate(evaluation, model, params, tokenizer, material, key, bar.advance)
