"""Attack one model, score it before and after, keep scores and no answers."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from omegaconf import DictConfig

from immunax.attacks.attack import Attack, AttackData, Edit, Tampered
from immunax.attacks.prepare import prepare
from immunax.attacks.run import run_attack
from immunax.conditions.episode import Course, Episode
from immunax.data.chat import Counts
from immunax.data.dialog import Splits
from immunax.data.prompts import Prompts
from immunax.judges.evaluate import (
    Evaluation,
    Material,
    Scores,
    answers,
    asked_by,
    batch_count,
    evaluate,
    held_out,
    judge,
)
from immunax.models.model import Model, Params
from immunax.runtime import console
from immunax.runtime.errors import UserError
from immunax.stages.setup import Setup, build, check_context


class Reporter:
    """Hands an attack's losses to the bar on show: one object, so that one compiled program serves every model."""

    def __init__(self) -> None:
        self.bar: console.Bar | None = None

    def __call__(self, loss: jax.Array) -> None:
        """One step is done."""
        if self.bar is not None:
            self.bar.advance(loss=float(loss))


@dataclass(frozen=True)
class Probes:
    """What an attacked model is asked along the attack.

    Attributes:
      prompts: how many of the held-out prompts.
      max_new_tokens: the most tokens of an answer.
    """

    prompts: int = 16
    max_new_tokens: int = 24

    def __post_init__(self):
        if min(self.prompts, self.max_new_tokens) < 1:
            raise UserError(
                f"probes.prompts={self.prompts}, probes.max_new_tokens={self.max_new_tokens}: expected at least 1."
            )


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
      reporter: told every step's loss.
    """

    attack: Attack
    evaluation: Evaluation
    before: Material
    after: Material
    data: AttackData
    report: Counts
    reporter: Reporter


def from_config(config: DictConfig, name: str, setup: Setup) -> RedTeam:
    """The attack and the evaluation that a command's configuration describes, of lengths that the model can take.

    Args:
      config: with the groups ``judge`` and ``probes``.
      name: the node of the attack.
      setup: model and data.

    Raises:
      UserError: as :func:`assemble`, or a sequence may be longer than the model's context.
    """
    parts = build(config[name]), build(config.judge)
    team = assemble(*parts, setup.checkpoint.tokenizer, setup.splits, build(config.probes))
    check_lengths(setup.model, team.evaluation, *longest(team.attack, name))
    return team


def longest(attack: Any, name: str) -> tuple[str, int]:
    """The field of an attack that sets how long its sequences are, and its value; 0 where it reads none.

    Args:
      attack: a fine-tuning, or an edit.
      name: the node of the attack.
    """
    if isinstance(attack, Edit):
        return f"{name}.max_length", getattr(attack, "max_length", 0)
    return f"{name}.tuning.max_length", attack.tuning.max_length


def check_lengths(model: Model, evaluation: Evaluation, field: str, tokens: int) -> None:
    """Refuses an attack or its evaluation on sequences longer than the model's context.

    Args:
      model: static.
      evaluation: what its prompts and answers may come to.
      field: that sets the attack's length.
      tokens: the attack's length.

    Raises:
      UserError: one is longer.
    """
    judged = evaluation.max_length + evaluation.decoding.max_new_tokens
    check_context(model, {field: tokens, "judge.max_length + judge.decoding.max_new_tokens": judged})


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
    after = asked_by(before, attack, evaluation, tokenizer)
    probed = Prompts(*(part[: probes.prompts] for part in after.prompts))
    decoding = replace(evaluation.decoding, max_new_tokens=probes.max_new_tokens)
    data, report = prepare(attack, tokenizer, splits, probed, decoding)
    return RedTeam(attack, evaluation, before, after, data, report, Reporter())


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

    Raises:
      UserError: the attack's loss is not finite.
    """
    attack_key, before_key, after_key = jax.random.split(jax.random.key(seed), 3)
    if before is None:
        before = _evaluate(team.evaluation, model, params, tokenizer, team.before, before_key, f"evaluate {name}")
    # An edit may take no step at all.
    steps = getattr(team.attack, "steps", 1) if isinstance(team.attack, Edit) else len(team.data.material.tokens)
    with console.progress(f"attack {name}", steps, "step") as bar:
        team.reporter.bar = bar
        tampered = _run(team.attack, model, team.reporter, params, team.data, attack_key)
        trace = jax.tree.map(np.asarray, jax.block_until_ready(tampered.trace))
        jax.effects_barrier()
    finite = np.isfinite(trace.loss)
    if not finite.all():
        raise UserError(
            f"the attack on {name} diverged: its loss is {trace.loss[~finite][0]} at step {np.argmin(finite) + 1}, and says "
            "nothing of resistance; lower its learning rate or step size."
        )
    after = _evaluate(
        team.evaluation, model, tampered.params, tokenizer, team.after, after_key, f"evaluate attacked {name}"
    )
    probed = team.after.dialogs[: trace.probe_answers.shape[1]]
    each = [judge(team.evaluation, probed, answers(tokenizer, ids, team.data.stop)) for ids in trace.probe_answers]
    probes = {judge_name: np.stack([scores[judge_name] for scores in each]) for judge_name in team.evaluation.judges}
    return Episode(before, after, Course(np.asarray(trace.loss, np.float64), trace.probe_steps, probes))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    attack: Attack, model: Model, reporter: Reporter, params: Params, data: AttackData, key: jax.Array
) -> Tampered:
    return run_attack(attack, model, params, data, key, reporter)


def _evaluate(evaluation, model, params, tokenizer, material: Material, key, title: str):
    with console.progress(title, batch_count(evaluation, material), "batch") as bar:
        return evaluate(evaluation, model, params, tokenizer, material, key, bar.advance)
