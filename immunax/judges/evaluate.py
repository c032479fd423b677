"""One model's scores on held-out data: what every judge says of its answers, and how likely it finds given ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from immunax.data.batches import Batch, pad, stack
from immunax.data.chat import encode_all
from immunax.data.dialog import Dialog, Split
from immunax.data.packing import fit_padded
from immunax.data.prompts import Prompts, prompt_rows, stop_tokens
from immunax.judges.exact import exact_matches
from immunax.judges.judge import Judge
from immunax.judges.likelihood import Likelihood, likelihood
from immunax.models.generate import Decoding, generate
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and on how much.

    Attributes:
      judges: by name; each scores the generated answers.
      split: ``test``, ``validation`` or ``transfer``.
      prompts: distinct harmful prompts that the model answers.
      examples: harmful and harmless dialogs whose given answers it finds likely or not, of each.
      max_length: tokens of a prompt, and of a dialog with its answer (cut there).
      decoding: how answers are drawn.
      batch_size: sequences at once.
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


class Material(NamedTuple):
    """Held-out data, encoded.

    Attributes:
      dialogs: the P prompts, as judges see them.
      prompts: the same as tokens.
      harmful, retain: padded batches ``[K, B, T]``, or None where the data have none.
      stop: ids that end an answer.
    """

    dialogs: tuple[Dialog, ...]
    prompts: Prompts
    harmful: Batch | None
    retain: Batch | None
    stop: tuple[int, ...]


class Scores(NamedTuple):
    """One model's scores.

    Attributes:
      judged: by judge, ``[P]`` in [0, 1], 1 is harmful, NaN where it does not apply.
      harmful, retain: likelihood of held-out harmful and harmless answers, or None.
      exact: ``[N]``, 1 where greedy decoding gives a harmless example's answer word for word, or None.
    """

    judged: dict[str, np.ndarray]
    harmful: Likelihood | None
    retain: Likelihood | None
    exact: np.ndarray | None = None


def held_out(evaluation: Evaluation, tokenizer: Any, split: Split) -> Material:
    """Encodes the first distinct prompts and examples of a held-out split.

    Args:
      evaluation: how many, and how long.
      tokenizer: the model's.
      split: held-out data.

    Raises:
      UserError: the split has no harmful prompt, or a prompt is too long.
    """
    source = split.harmful or split.safe
    if not source:
        raise UserError(f"the data have no harmful prompts in the split {evaluation.split!r}: choose other data.")
    distinct = tuple({dialog.prompt: dialog for dialog in source}.values())[: evaluation.prompts]
    return Material(
        distinct,
        prompt_rows(tokenizer, distinct, evaluation.max_length),
        _padded(evaluation, tokenizer, split.harmful),
        _padded(evaluation, tokenizer, split.retain),
        stop_tokens(tokenizer),
    )


def asked_by(material: Material, attack: Any, evaluation: Evaluation, tokenizer: Any) -> Material:
    """The same material, its prompts as an attacker puts them to the model that he attacked.

    Args:
      material: from :func:`held_out`.
      attack: whose ``evaluation(dialog)`` gives a prompt's form.
      evaluation: its lengths.
      tokenizer: the model's.
    """
    asked = [attack.evaluation(dialog) for dialog in material.dialogs]
    return material._replace(prompts=prompt_rows(tokenizer, asked, evaluation.max_length))


def _padded(evaluation: Evaluation, tokenizer: Any, dialogs: Sequence[Dialog]) -> Batch | None:
    chosen = [dialog for dialog in dialogs if dialog.answer][: evaluation.examples]
    if not chosen:
        return None
    examples, _ = encode_all(tokenizer, chosen, evaluation.max_length)
    size = evaluation.batch_size
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    layout = fit_padded(batches)
    return stack([pad(batch, layout) for batch in batches])


@partial(jax.jit, static_argnums=(0, 4, 5))
def _answer(model: Model, params: Params, tokens, segment_ids, stop, decoding, key) -> jax.Array:
    return generate(model, params, tokens, segment_ids, stop, decoding, key)


def answers(tokenizer: Any, ids: np.ndarray, stop: tuple[int, ...]) -> list[str]:
    """Texts of generated ids ``[P, G]``, without stop tokens and what follows."""
    return [
        tokenizer.decode(
            [token for token in row.tolist() if token >= 0 and token not in stop], skip_special_tokens=True
        )
        for row in np.asarray(ids)
    ]


def judge(evaluation: Evaluation, dialogs: Sequence[Dialog], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Every judge's scores ``[P]`` of P answers."""
    return {name: np.asarray(each.score(dialogs, texts), np.float64) for name, each in evaluation.judges.items()}


def batch_count(evaluation: Evaluation, material: Material) -> int:
    """How many batches :func:`evaluate` takes."""
    parts = material.harmful, material.retain, material.retain if evaluation.exact else None
    given = sum(part.tokens.shape[0] for part in parts if part is not None)
    return -(-len(material.dialogs) // evaluation.batch_size) + given


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
    ids = []
    for start in range(0, len(material.dialogs), evaluation.batch_size):
        rows = [_rows(part, start, evaluation.batch_size) for part in material.prompts]
        key, subkey = jax.random.split(key)
        ids.append(np.asarray(_answer(model, params, *rows, material.stop, evaluation.decoding, subkey)))
        advance()
    texts = answers(tokenizer, np.concatenate(ids)[: len(material.dialogs)], material.stop)
    harmful, retain = (
        None if part is None else likelihood(model, params, part, advance)
        for part in (material.harmful, material.retain)
    )
    counted = material.retain if evaluation.exact else None
    exact = None if counted is None else exact_matches(model, params, counted, advance)
    return Scores(judge(evaluation, material.dialogs, texts), harmful, retain, exact)


def _rows(values: Any, start: int, size: int) -> np.ndarray:
    # The last, short batch repeats a row rather than compiling another shape.
    rows = np.asarray(values)[start : start + size]
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
