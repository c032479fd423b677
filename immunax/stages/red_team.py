"""An attack and how its success is measured, on encoded data, ready for any number of models."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from immunax.attacks.attack import Attack, Edit, FineTuning
from immunax.campaign.programs import Program, programs
from immunax.data.chat import Counts
from immunax.data.dialog import Splits
from immunax.data.prompts import Prompts
from immunax.judges.evaluate import Evaluation, Material, asked_by, held_out
from immunax.judges.refusal import Refusal
from immunax.models.model import Model
from immunax.runtime import console
from immunax.runtime.errors import UserError
from immunax.runtime.user_config import UserConfig
from immunax.stages.kept import ATTACK
from immunax.stages.setup import Setup, check_context


@dataclass(frozen=True)
class Probes:
    """What an attacked model is asked along the attack.

    Attributes:
      prompts: how many of the held-out prompts.
      max_new_tokens: the most tokens of an answer.
      until: an attack ends where refusals among the answers are shown to have fallen below this share, by the 95% interval of
        their rate; None for the whole attack.
    """

    prompts: int = 16
    max_new_tokens: int = 24
    until: float | None = None

    def __post_init__(self):
        if min(self.prompts, self.max_new_tokens) < 1:
            raise UserError(
                f"probes.prompts={self.prompts}, probes.max_new_tokens={self.max_new_tokens}: expected at least 1."
            )
        if self.until is not None and not 0 < self.until <= 1:
            raise UserError(f"probes.until={self.until}: expected a share of refusals above 0, at most 1, or null.")


@dataclass(frozen=True)
class RedTeam:
    """An attack, and what is asked before, along and after it.

    Attributes:
      attack: the attack.
      evaluation: judges and amounts.
      probes: what is asked along the attack.
      before: held-out material as users would put it.
      after: the same as the attacker puts it to the attacked model.
      material: what the attack reads: of a fine-tuning, its program.
    """

    attack: FineTuning | Edit
    evaluation: Evaluation
    probes: Probes
    before: Material
    after: Material
    material: Any

    @property
    def probed(self) -> Material:
        """What is asked along the attack, in the attacker's wording, and no given answers."""
        count = self.probes.prompts
        prompts = Prompts(*(part[:count] for part in self.after.prompts))
        return self.after._replace(dialogs=self.after.dialogs[:count], prompts=prompts, harmful=None, retain=None)

    @property
    def probing(self) -> Evaluation:
        """How it is asked."""
        decoding = replace(self.evaluation.decoding, max_new_tokens=self.probes.max_new_tokens)
        return replace(self.evaluation, decoding=decoding)

    @property
    def data(self) -> Any:
        """The arrays that the attack reads, and its probes."""
        read = self.material.batches.encoded if isinstance(self.material, Program) else self.material
        return read, self.probed.prompts

    @property
    def counts(self) -> dict[str, Counts]:
        """What became of the attack's dialogs, and of those whose given answers are weighed."""
        read = self.material.counts[0] if isinstance(self.material, Program) else Counts(0, 0, 0)
        return {ATTACK: read, **self.before.counts}

    @property
    def lengths(self) -> dict[str, str]:
        """The fields that set how long these may be, with their values."""
        own = f"attack {self.attack.length_field}={self.attack.max_length}"
        return {ATTACK: own, **dict.fromkeys(self.before.counts, f"judge.max_length={self.evaluation.max_length}")}


def from_config(config: UserConfig, name: str, setup: Setup) -> RedTeam:
    """The attack and the evaluation that a command's configuration describes, of lengths that the model can take.

    Args:
      config: with the groups ``judge`` and ``probes``.
      name: the node of the attack.
      setup: model and data.

    Raises:
      UserError: as :func:`assemble`, or a sequence may be longer than the model's context.
    """
    parts = config.build(name), config.build("judge")
    team = assemble(*parts, setup.checkpoint.tokenizer, setup.splits, config.build("probes"))
    check_lengths(setup.model, team.evaluation, f"{name}.{team.attack.length_field}", team.attack.max_length)
    tell_language([team.attack], team.evaluation)
    return team


def tell_language(attacks: Iterable[Attack], evaluation: Evaluation) -> None:
    """Says in one line where answers may be in another language than the phrases that refusals are told by.

    Args:
      attacks: which may change the language.
      evaluation: its judges.
    """
    phrases = [name for name, judge in evaluation.judges.items() if isinstance(judge, Refusal)]
    if phrases and any(attack.foreign for attack in attacks):
        console.note(
            f"the judge {phrases[0]} looks for English phrases, and an attack may make the model refuse in another language; "
            "a judge that reads it is +scorer@judge.judges.llm=llm_endpoint or llm_local"
        )


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


def assemble(
    attack: FineTuning | Edit, evaluation: Evaluation, tokenizer: Any, splits: Splits, probes: Probes
) -> RedTeam:
    """Encodes everything once.

    Args:
      attack: a fine-tuning, or an edit.
      evaluation: judges and amounts.
      tokenizer: the model's.
      splits: the data, of which an attack trains on ``attack``.
      probes: what is asked along the attack.

    Raises:
      UserError: the data lack what the attack or the evaluation needs.
    """
    if probes.until is not None and "refusal" not in evaluation.judges:
        raise UserError(
            f"probes.until={probes.until} watches refusals, and judge.judges has no refusal; add it, or set probes.until=null."
        )
    before = held_out(evaluation, tokenizer, getattr(splits, evaluation.split))
    after = asked_by(before, attack, evaluation, tokenizer)
    if isinstance(attack, Edit):
        return RedTeam(attack, evaluation, probes, before, after, attack.material(tokenizer, splits))
    (program,) = programs([attack], tokenizer, splits)
    return RedTeam(attack, evaluation, probes, before, after, program)
