"""Embedding attack: a continuous suffix of the request, which no tokenizer has words for.

Schwinn et al. 2024, *Soft Prompt Threats* (arXiv:2402.09063): whoever has the weights can optimise embeddings instead of words.
As in the authors' code (SchwinnL/LLM_Embedding_Attack 7ebabc4), k marks "!" follow the request, to whose embeddings δ is added;

    δ ← δ − η · sign ∇_δ CE(answer | request, marks + δ),   from δ = 0.

There a suffix is for one prompt or for all (``attack_type`` individual or universal); here each is an attack of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from immunax.attacks.attack import Edit
from immunax.attacks.finetune import take
from immunax.attacks.steering import BATCH, batches_of, steer, unsteered
from immunax.data.batches import Batch, pad, stack
from immunax.data.chat import UNBOUNDED, Encoded, encode_all, encode_prompts
from immunax.data.dialog import Dialog, Splits, ask, question_words
from immunax.data.packing import fit_padded
from immunax.data.template import Template
from immunax.models.model import Model, Params
from immunax.models.steered import Steered, prompt_keys
from immunax.runtime.errors import UserError


class Suffixed(NamedTuple):
    """Dialogs whose requests end in marks.

    Attributes:
      batches: ``[K, B, T]``, one a step; or ``[C, B, T]``, all C of which are read in every step, a dialog a row.
      marks: ``[k]`` int32.
    """

    batches: Batch
    marks: Any


@dataclass(frozen=True)
class EmbeddingAttack(Edit):
    """One suffix for all prompts, sought on the attacker's harmful dialogs.

    Attributes:
      tokens: k, of a tokenizer that has the mark as one token; of others as many as that many marks have.
      steps: signed gradient steps.
      step_size: η, in units of the embeddings.
      mark: what the suffix begins as, over and over.
      samples: the attacker's harmful dialogs.
      max_length: tokens of a dialog, without what a chat template adds; longer answers are cut.
      seed: of the choice and the order of the dialogs.
    """

    seed_field: ClassVar[str | None] = "seed"
    tokens: int = 20
    steps: int = 100
    step_size: float = 0.001
    mark: str = "!"
    samples: int = 16
    max_length: int = 512
    seed: int = 0

    def __post_init__(self):
        if self.tokens < 2 or min(self.steps, self.samples) < 1 or self.step_size <= 0 or not self.mark.strip():
            raise UserError(
                f"{self}: expected tokens of at least 2, steps and samples of at least 1, a positive step_size, and a mark."
            )

    def evaluation(self, dialog: Dialog) -> Dialog:
        """A held-out prompt with the marks behind its request."""
        return Template(after=f" {self.mark}" * self.tokens).wrap(dialog)

    def material(self, tokenizer: Any, splits: Splits) -> Suffixed:
        """The attacker's dialogs with marks.

        Raises:
          UserError: the data lack them, or the tokenizer merges the marks with other text.
        """
        chosen = take(splits.attack.harmful, self.samples, self.seed, "harmful")
        dialogs = [self.evaluation(dialog) for dialog in chosen]
        marks = self.marks(tokenizer, dialogs)
        return Suffixed(batches_of(tokenizer, dialogs, self.steps, self.max_length, self.seed), marks)

    def edit(self, model: Model, params: Params, material: Suffixed, key: jax.Array) -> tuple[Params, jax.Array]:
        """Weights with the suffix."""
        zero = self.unmoved(model, params, material.marks)
        start = jnp.zeros((1, len(material.marks), model.config.d_model))
        return steer(model, params, material.batches, self.descent, start, lambda rows: zero._replace(prompt=rows))

    @property
    def descent(self) -> optax.GradientTransformation:
        """The signed steps."""
        return optax.chain(optax.scale_by_sign(), optax.scale(-self.step_size))

    def marks(self, tokenizer: Any, dialogs: Sequence[Dialog]) -> np.ndarray:
        """The tokens of the marks, ``[k]`` int32.

        Args:
          tokenizer: the model's.
          dialogs: prompts that end in marks, each of which is looked through.

        Raises:
          UserError: they are not the same tokens in every prompt.
        """
        asked = ask(" ".join(question_words(dialogs, 1)))
        plain, marked = encode_prompts(tokenizer, [asked, self.evaluation(asked)], UNBOUNDED)
        same = next(
            (place for place, pair in enumerate(zip(plain, marked, strict=False)) if pair[0] != pair[1]), len(plain)
        )
        found = marked[same : len(marked) - (len(plain) - same)]
        for prompt in encode_prompts(tokenizer, dialogs, UNBOUNDED):
            starts = (prompt[place : place + len(found)] for place in range(len(prompt)))
            if len(found) < 2 or found not in starts:
                raise UserError(
                    f"attack.mark={self.mark!r}: the tokenizer does not keep {self.tokens} of them behind a request as tokens of "
                    "their own; choose another mark."
                )
        return np.array(found, np.int32)

    def unmoved(self, model: Model, params: Params, marks: Any) -> Steered:
        """The weights with a suffix that is still the marks' own embeddings."""
        zero = jnp.zeros((1, len(marks), model.config.d_model))
        return unsteered(model, params)._replace(prompt=zero, marks=jnp.asarray(marks))


@dataclass(frozen=True)
class PromptwiseEmbeddingAttack(EmbeddingAttack):
    """A suffix for each held-out prompt, sought on that prompt and an opening that goes along with it.

    The attacker knows what he will ask, and no answer to it. A prompt that is not among these is asked with the marks alone.

    Attributes:
      samples: distinct prompts of each split, the first ones, as an evaluation asks them.
      opening: of the answer (theirs, from AdvBench, goes on with the request).
      splits: that prompts are asked of.
    """

    seed_field: ClassVar[str | None] = None
    samples: int = 40
    opening: str = "Sure, here is"
    splits: tuple[str, ...] = ("test", "transfer")

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "splits", tuple(self.splits))
        if not self.opening.strip() or not set(self.splits) <= {"validation", "test", "transfer"}:
            raise UserError(
                f"attack.opening={self.opening!r}, splits={list(self.splits)}: expected some words, and some of "
                "validation, test, transfer."
            )

    def material(self, tokenizer: Any, splits: Splits) -> Suffixed:
        """The held-out prompts with marks, and the opening as their answer; the last batch is filled up with the first ones.

        Raises:
          UserError: the splits have no harmful prompts, or the tokenizer merges the marks with other text.
        """
        prompts: dict[Any, Dialog] = {}
        for split in (getattr(splits, name) for name in self.splits):
            distinct = {dialog.prompt: dialog for dialog in split.harmful or split.safe}
            prompts |= dict(list(distinct.items())[: self.samples])
        if not prompts:
            raise UserError(f"attack.splits={list(self.splits)}: the data have no harmful prompts there; name others.")
        dialogs = [Dialog(self.evaluation(dialog).prompt, self.opening) for dialog in prompts.values()]
        # Without its last token: an opening does not end the answer.
        examples = [
            Encoded(each.prompt, each.answer[:-1]) for each in encode_all(tokenizer, dialogs, self.max_length)[0]
        ]
        size = min(BATCH, len(examples))
        chunks = [
            [examples[place % len(examples)] for place in range(start, start + size)]
            for start in range(0, len(examples), size)
        ]
        layout = fit_padded(chunks)
        return Suffixed(stack([pad(chunk, layout) for chunk in chunks]), self.marks(tokenizer, dialogs))

    def edit(self, model: Model, params: Params, material: Suffixed, key: jax.Array) -> tuple[Params, jax.Array]:
        """Weights with the suffixes; their losses are means over all prompts."""
        zero = self.unmoved(model, params, material.marks)
        rows = material.batches.tokens.shape[1]
        start = jnp.zeros((rows, len(material.marks), model.config.d_model))

        def seek(chunk: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
            keys = prompt_keys(jnp.asarray(chunk.tokens), zero.marks)
            # Signs of a mean's gradient are those of each prompt's own: no suffix knows of another.
            again = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.steps, *leaf.shape)), chunk)
            steered, losses = steer(
                model, params, again, self.descent, start, lambda vectors: zero._replace(prompt=vectors, keys=keys)
            )
            return steered.prompt, keys, losses

        prompts, keys, losses = jax.lax.map(seek, material.batches)
        return zero._replace(prompt=prompts.reshape(-1, *prompts.shape[2:]), keys=keys.ravel()), losses.mean(axis=0)
