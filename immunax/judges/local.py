"""A model on this machine as a respondent: a Hugging Face folder, a Hub id or a GGUF file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from immunax.data.dialog import Dialog
from immunax.data.ends import stop_tokens
from immunax.data.prompts import Prompts, open_thought, prompt_rows
from immunax.judges.reading import read
from immunax.judges.replies import Reply, by_leader, store
from immunax.judges.rubric import Rating, parse
from immunax.models.generate import Decoding, generate
from immunax.models.hub import Checkpoint, ModelSource
from immunax.models.model import Model, Params
from immunax.runtime import pace
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class LocalModel:
    """Answers greedily, so a malformed reply is not asked for again in the same run.

    Attributes:
      source: of the model.
      max_length: tokens of a question; the rubric alone takes some 260 of SmolLM2's.
      max_new_tokens: of a reply.
      batch_size: questions at once.
      dtype: of the computation.
    """

    source: ModelSource
    max_length: int = 2048
    max_new_tokens: int = 32
    batch_size: int = 8
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("max_length", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"local judge {name}={getattr(self, name)}: expected at least 1.")

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The digests of the model's files, how it is spoken to, and how it computes."""
        computed = {"max_new_tokens": self.max_new_tokens, "dtype": self.dtype}
        return {**self.source.by_content(), **computed}

    @property
    def described(self) -> str:
        """The model's path or id."""
        return f"the checkpoint {self.source.path}"

    def rate(self, asked: Sequence[Dialog]) -> list[Rating | None]:
        """Asks what it has not rated before; equal questions once, and on the leader's device for all processes.

        A reply without a rating is forgotten.

        Args:
          asked: N questions.

        Returns:
          N ratings, None where the reply was malformed.

        Raises:
          UserError: the model cannot be read, or a question is longer than ``max_length``.
        """
        identity = self.identity  # which all find out together
        return by_leader(lambda: self._rated(identity, asked))

    def _rated(self, identity: Mapping[str, Any], asked: Sequence[Dialog]) -> list[Rating | None]:
        kept = store(identity)
        replies = {question: kept.find(question, 0) for question in dict.fromkeys(asked)}
        rated = {question: None if reply is None else reply.rating for question, reply in replies.items()}
        new = [question for question, rating in rated.items() if rating is None]
        for question, text in zip(new, self._replies(new) if new else [], strict=True):
            rated[question] = parse(text)
            if rated[question] is not None:
                kept.keep(question, 0, Reply(rated[question]))
        return [rated[question] for question in asked]

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        return self.source.load(dtype=self.dtype)

    def _replies(self, asked: Sequence[Dialog]) -> list[str]:
        loaded = self._checkpoint
        stop, thinking = stop_tokens(loaded.tokenizer, asked[0]), open_thought(loaded.tokenizer, asked[0])
        model = Model(loaded.config, dtype=self.dtype)
        decoding = Decoding(self.max_new_tokens)
        # Of like lengths together: the shape of a batch is its longest question's, and every shape is compiled.
        lengths = [sum(len(turn.content) for turn in question.prompt) for question in asked]
        order = np.argsort(lengths, kind="stable")
        texts = [""] * len(asked)
        for start in range(0, len(order), self.batch_size):
            pace.move()
            places = order[start : start + self.batch_size]
            rows = _filled(prompt_rows(loaded.tokenizer, [asked[i] for i in places], self.max_length), self.batch_size)
            ids = np.asarray(_write(model, loaded.params, rows, stop, decoding))
            found = read(loaded.tokenizer, ids[: len(places)], stop, thinking).texts
            for place, text in zip(places, found, strict=True):
                texts[place] = text or ""
        return texts


_WIDTH = 128
"""Questions are padded to a multiple of it, so that few shapes are compiled."""


def _filled(rows: Prompts, size: int) -> Prompts:
    """The same prompts and copies of the first, ``[size, T]`` with T a multiple of :data:`_WIDTH`."""
    count, width = rows.tokens.shape
    wide = -(-width // _WIDTH) * _WIDTH
    places = np.pad(np.arange(count), (0, size - count))
    return Prompts(*(np.pad(np.asarray(part), ((0, 0), (0, wide - width)))[places] for part in rows))


@partial(jax.jit, static_argnums=(0, 3, 4))
def _write(model: Model, params: Params, rows: Prompts, stop: tuple[int, ...], decoding: Decoding) -> jax.Array:
    return generate(model, params, rows.tokens, rows.segment_ids, stop, decoding)
