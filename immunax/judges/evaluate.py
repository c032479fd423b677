"""One model's scores on held-out data: what every judge says of its answers, and how likely it finds given ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from immunax.data.batches import Batch, layout_of
from immunax.data.chat import Counts, encode_all
from immunax.data.dialog import Dialog, Split
from immunax.data.ends import stop_tokens
from immunax.data.packing import Layout
from immunax.data.prompts import Prompts, open_thought, prompt_rows, widened
from immunax.inner.context import check_context
from immunax.inner.weighing import Marks, Weigh
from immunax.judges.examination import Answer, answer_all, as_computed, weigh_all
from immunax.judges.judge import Judge, collect
from immunax.judges.likelihood import Likelihood, by_example, in_rows
from immunax.judges.reading import read
from immunax.judges.rows import everywhere, memory_bytes, rows_at_once
from immunax.models.generate import Decoding
from immunax.models.model import Model, Params
from immunax.runtime import goodput
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import under


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and on how much.

    Attributes:
      judges: by name; each scores the generated answers.
      split: ``test``, ``validation`` or ``transfer``.
      prompts: distinct harmful prompts that the model answers.
      examples: harmful and harmless dialogs whose given answers it finds likely or not, of each.
      max_length: tokens of a prompt, and of a dialog with its answer (cut there), without what a chat template adds.
      decoding: how answers are drawn.
      batch_size: sequences at once. On an accelerator more prompts are answered at once, as many as
        :func:`~immunax.judges.rows.rows_at_once` says, unless answers are sampled: a batch draws with a key of its own.
      exact: whether harmless examples have one right answer, so that a model's are counted word for word.
    """

    judges: Mapping[str, Judge] = field(default_factory=dict)
    split: str = "test"
    prompts: int = 40
    examples: int = 32
    max_length: int = 192
    decoding: Decoding = Decoding()
    batch_size: int = 8
    exact: bool = False

    def __post_init__(self):
        if self.split not in ("test", "validation", "transfer"):
            raise UserError(f"judge.split={self.split!r}: expected test, validation or transfer.")
        for name in ("prompts", "examples", "max_length", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"judge.{name}={getattr(self, name)}: expected at least 1.")

    @property
    def rows(self) -> int:
        """Given answers that are weighed at once: as many as the examples fill evenly, where these are not far too few."""
        batches = -(-self.examples // self.batch_size)
        evenly = -(-self.examples // batches)
        return evenly if 2 * evenly >= self.batch_size else self.batch_size


class Material(NamedTuple):
    """Held-out data, encoded.

    Attributes:
      dialogs: the P prompts, as judges see them.
      prompts: the same as tokens.
      harmful, retain: padded batches ``[K, B, T]``, or None where the data have none.
      stop: ids that end an answer.
      thinking: the marker that closes the thought that the prompts leave open, or None.
      counts: what became of the dialogs of ``held-out harmful`` and ``held-out retain``.
    """

    dialogs: tuple[Dialog, ...]
    prompts: Prompts
    harmful: Batch | None
    retain: Batch | None
    stop: tuple[int, ...]
    thinking: str | None = None
    counts: Mapping[str, Counts] = MappingProxyType({})

    @property
    def given(self) -> tuple[int, list[Layout]]:
        """The rows of a batch of given answers, and the layouts of all of them."""
        layouts = [layout_of(part) for part in (self.harmful, self.retain) if part is not None]
        return max((each.rows for each in layouts), default=1), layouts


class Scores(NamedTuple):
    """One model's scores.

    Attributes:
      judged: by judge, ``[P]`` in [0, 1], 1 is harmful, NaN where it does not apply.
      harmful, retain: likelihood of held-out harmful and harmless answers, or None.
      exact: ``[N]``, 1 where greedy decoding gives a harmless example's answer word for word, or None.
      unfinished: ``[P]`` bool, whether an answer had no end within its tokens, or None where nothing was generated.
      unanswered: ``[P]`` bool, whether the model was still thinking then, so that no judge has anything to score, or None.
    """

    judged: dict[str, np.ndarray]
    harmful: Likelihood | None
    retain: Likelihood | None
    exact: np.ndarray | None = None
    unfinished: np.ndarray | None = None
    unanswered: np.ndarray | None = None


def held_out(evaluation: Evaluation, tokenizer: Any, split: Split, beside: Material | None = None) -> Material:
    """Encodes the first distinct prompts and examples of a held-out split.

    Args:
      evaluation: how many, and how long.
      tokenizer: the model's.
      split: held-out data.
      beside: what is asked too, so that where it fits it has the same shapes.

    Raises:
      UserError: the split has no harmful prompt, or a prompt is too long.
    """
    source = split.harmful or split.safe
    if not source:
        raise UserError(f"the data have no harmful prompts in the split {evaluation.split!r}: choose other data.")
    distinct = tuple({dialog.prompt: dialog for dialog in source}.values())[: evaluation.prompts]
    rows, layouts = (evaluation.rows, ()) if beside is None else beside.given
    harmful, retain = (
        _padded(evaluation, tokenizer, dialogs, rows, layouts) for dialogs in (split.harmful, split.retain)
    )
    prompts = prompt_rows(tokenizer, distinct, evaluation.max_length)
    if beside is not None:
        prompts = widened(prompts, beside.prompts.tokens.shape[1])
    counts = {"held-out harmful": harmful[1], "held-out retain": retain[1]}
    return Material(
        distinct,
        prompts,
        harmful[0],
        retain[0],
        stop_tokens(tokenizer, distinct[0]),
        open_thought(tokenizer, distinct[0]),
        {name: each for name, each in counts.items() if each is not None},
    )


def asked_by(material: Material, attack: Any, evaluation: Evaluation, tokenizer: Any) -> Material:
    """The same material, its prompts as an attacker puts them to the model that he attacked, in no narrower rows.

    Args:
      material: from :func:`held_out`.
      attack: whose ``evaluation(dialog)`` gives a prompt's form.
      evaluation: its lengths.
      tokenizer: the model's.
    """
    asked = [attack.evaluation(dialog) for dialog in material.dialogs]
    prompts = prompt_rows(tokenizer, asked, evaluation.max_length)
    return material._replace(
        prompts=widened(prompts, material.prompts.tokens.shape[1]), thinking=open_thought(tokenizer, asked[0])
    )


def _padded(
    evaluation: Evaluation, tokenizer: Any, dialogs: Sequence[Dialog], rows: int, layouts: Sequence[Layout]
) -> tuple[Batch, Counts] | tuple[None, None]:
    chosen = [dialog for dialog in dialogs if dialog.answer][: evaluation.examples]
    if not chosen:
        return None, None
    examples, counts = encode_all(tokenizer, chosen, evaluation.max_length)
    return in_rows(examples, rows, layouts), counts


def judge(evaluation: Evaluation, dialogs: Sequence[Dialog], texts: Sequence[str | None]) -> dict[str, np.ndarray]:
    """Every judge's scores ``[P]`` of P answers, see :func:`~immunax.judges.judge.collect`."""
    with goodput.spending("evaluate"):
        return {name: collect(name, each, dialogs, texts) for name, each in evaluation.judges.items()}


def batch_count(evaluation: Evaluation, model: Model, material: Material) -> int:
    """How many batches :func:`evaluate` takes."""
    given = sum(part.tokens.shape[0] for part in (material.harmful, material.retain) if part is not None)
    at_once = _answered_at_once(evaluation, model, material.prompts)
    return given + (-(-len(material.dialogs) // at_once) if evaluation.judges else 0)


def _answered_at_once(evaluation: Evaluation, model: Model, prompts: Prompts) -> int:
    least, memory = evaluation.batch_size, everywhere(memory_bytes())
    if evaluation.decoding.temperature > 0 or memory is None:
        return least
    count, width = prompts.tokens.shape[-2:]
    most = rows_at_once(model, least, width, evaluation.decoding.max_new_tokens, memory)
    return -(-count // -(-count // most))  # equal turns: a last one of few would take as long as any


class Given(NamedTuple):
    """What models answer and how they weigh given answers, before it is judged; ``...`` is nothing, or an axis of members.

    Attributes:
      ids: ``[..., P, G]`` int32, -1 past the end of an answer; None where no judge asks.
      harmful, retain: marks ``[..., K, B]``, or None.
    """

    ids: np.ndarray | None
    harmful: Marks | None
    retain: Marks | None


def examine(
    evaluation: Evaluation,
    model: Model,
    answer: Callable[[tuple[Prompts, jax.Array]], Any],
    weigh: Callable[[Batch], Marks],
    material: Material,
    key: jax.Array,
    advance: Callable[[], None] = lambda: None,
) -> Given:
    """Asks one model, or many, everything.

    Args:
      evaluation: amounts, and whether anything is judged.
      model: static.
      answer, weigh: as :class:`~immunax.judges.examination.Answer` and :class:`~immunax.judges.examination.Weigh` do, of
        the weights in question.
      material: its prompts ``[..., P, T]``.
      key: ``[...]``, of sampled answers.
      advance: called after each of the :func:`batch_count` batches.
    """
    ids = None
    if evaluation.judges:
        at_once = _answered_at_once(evaluation, model, material.prompts)
        ids = answer_all(answer, material.prompts, key, at_once, advance)
    parts = (material.harmful, material.retain)
    return Given(ids, *(None if part is None else weigh_all(weigh, part, advance) for part in parts))


def check_room(evaluation: Evaluation, model: Model, material: Material) -> None:
    """Refuses material that is longer than a model's context.

    Args:
      evaluation: gives the tokens of an answer.
      model: static.
      material: what is to be asked.

    Raises:
      UserError: a prompt with its answer, or a dialog with its given answer, is longer.
    """
    written = evaluation.decoding.max_new_tokens if evaluation.judges else 0
    check_context(
        model, "a held-out prompt with judge.decoding.max_new_tokens for its answer", material.prompts, written
    )
    check_context(model, "a held-out dialog", (material.harmful, material.retain))


def judged(evaluation: Evaluation, tokenizer: Any, material: Material, given: Given) -> Scores:
    """What one model's answers score.

    Args:
      evaluation: its judges.
      tokenizer: the model's.
      material: what was asked.
      given: of one model.

    Raises:
      UserError: its logits are not finite, or a judge gives no scores.
    """
    (harmful, _), (retain, exact) = (
        (None, None) if marks is None or part is None else by_example(marks, part)
        for marks, part in ((given.harmful, material.harmful), (given.retain, material.retain))
    )
    exact = exact if evaluation.exact else None
    if given.ids is None:
        return Scores({}, harmful, retain, exact)
    texts, unfinished = read(tokenizer, given.ids, material.stop, material.thinking)
    unanswered = np.array([text is None for text in texts])
    return Scores(judge(evaluation, material.dialogs, texts), harmful, retain, exact, unfinished, unanswered)


def given_by(
    evaluation: Evaluation,
    model: Model,
    params: Params,
    material: Material,
    key: jax.Array,
    advance: Callable[[], None] = lambda: None,
) -> Given:
    """What one model answers, and how it weighs given answers; see :func:`evaluate`.

    Raises:
      UserError: the material is longer than the model's context.
    """
    check_room(evaluation, model, material)
    weights = as_computed(model, params)
    answer = partial(Answer(model, material.stop, evaluation.decoding), weights)
    with under(weights):
        return examine(evaluation, model, answer, partial(Weigh(model), weights), material, key, advance)


def evaluate(
    evaluation: Evaluation,
    model: Model,
    params: Params,
    tokenizer: Any,
    material: Material,
    key: jax.Array,
    advance: Callable[[], None] = lambda: None,
) -> Scores:
    """Scores one model.

    Args:
      evaluation: judges and decoding.
      model: static.
      params: weights, plain or adapted.
      tokenizer: the model's.
      material: from :func:`held_out`.
      key: of sampled answers.
      advance: called after each of the :func:`batch_count` batches.

    Returns:
      :class:`Scores`; the answers themselves are not kept.
    """
    return judged(evaluation, tokenizer, material, given_by(evaluation, model, params, material, key, advance))
