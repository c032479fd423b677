"""A model on this machine as a respondent: a Hugging Face folder, a Hub id or a GGUF file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from immunax.data.dialog import Dialog
from immunax.data.ends import stop_tokens
from immunax.data.prompts import Prompts, open_thought, prompt_rows
from immunax.inner.memory import free_bytes
from immunax.judges.examination import Answer
from immunax.judges.reading import read
from immunax.judges.replies import Reply, by_leader, store
from immunax.judges.rows import memory_bytes, rows_at_once
from immunax.judges.rubric import Rating, parse
from immunax.models.generate import Decoding
from immunax.models.hub import Checkpoint, ModelSource
from immunax.models.kernels import choice
from immunax.models.model import Model, decoding_on
from immunax.runtime import pace
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, alone, build, data_ways, mesh_of, under
from immunax.runtime.together import behind


@dataclass(frozen=True)
class LocalModel:
    """Answers greedily, so a malformed reply is not asked for again in the same run.

    Attributes:
      source: of the model.
      max_length: tokens of a question; the rubric alone takes some 260 of SmolLM2's.
      max_new_tokens: of a reply.
      batch_size: questions at once; on accelerators as many as :func:`~immunax.judges.rows.rows_at_once` says.
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
        return self.source.load(_spread(self.source, self.dtype, jax.local_devices()), self.dtype)

    def _replies(self, asked: Sequence[Dialog]) -> list[str]:
        loaded = self._checkpoint
        stop, thinking = stop_tokens(loaded.tokenizer, asked[0]), open_thought(loaded.tokenizer, asked[0])
        kernel = choice.chosen(choice.AUTO, loaded.config, self.dtype, choice.platform())
        model = Model(loaded.config, dtype=self.dtype, attention=kernel, decoding=decoding_on(jax.default_backend()))
        answer = partial(Answer(model, stop, Decoding(self.max_new_tokens)), loaded.params)
        questions = prompt_rows(loaded.tokenizer, asked, self.max_length)
        # Of like lengths together: the shape of a batch is its longest question's, and every shape is compiled.
        lengths = np.asarray(questions.segment_ids).sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        size = self._at_once(model, len(asked), _wide(lengths.max()))
        texts = [""] * len(asked)
        chosen = [order[start : start + size] for start in range(0, len(order), size)]

        def begun() -> Iterator[jax.Array]:
            for places in chosen:
                pace.move()
                yield answer((_filled(questions, places, size, _wide(lengths[places[-1]])), None))

        with under(loaded.params):
            for places, ids in zip(chosen, behind(begun()), strict=True):
                found = read(loaded.tokenizer, ids[: len(places)], stop, thinking).texts
                for place, text in zip(places, found, strict=True):
                    texts[place] = text or ""
        return texts

    def _at_once(self, model: Model, count: int, width: int) -> int:
        """Questions at once: on an accelerator as many as there are and fit it, but in few numbers, each of which is compiled."""
        most = rows_at_once(model, self.batch_size, width, self.max_new_tokens, memory_bytes())
        size = self.batch_size
        while 2 * size <= most and size < count:
            size *= 2
        ways = data_ways(mesh_of(self._checkpoint.params) or alone())
        return -(-size // ways) * ways


_WIDTH = 128
"""Questions are padded to a multiple of it, so that few shapes are compiled."""


def _wide(length: int) -> int:
    return -(-int(length) // _WIDTH) * _WIDTH


def _filled(rows: Prompts, places: np.ndarray, size: int, width: int) -> Prompts:
    """Some prompts and copies of the first of them, ``[size, width]``."""
    places = np.pad(places, (0, size - len(places)), constant_values=places[0])
    beyond = max(0, width - rows.tokens.shape[1])
    return Prompts(*(np.pad(np.asarray(part), ((0, 0), (0, beyond)))[places, :width] for part in rows))


def _spread(source: ModelSource, dtype: str, devices: Sequence[Any]) -> Mesh | None:
    """The mesh of accelerators that share the questions: each with the whole model where that takes at most half of its free
    memory, or else with a part of it. None for one device, or a CPU."""
    if len(devices) == 1 or devices[0].platform == "cpu":
        return None
    weights = jax.tree.leaves(jax.eval_shape(Model(source.shape()).init, jax.random.key(0)))
    whole = jnp.dtype(dtype).itemsize * sum(leaf.size for leaf in weights) <= free_bytes() / 2
    return build(MeshSpec(data=-1) if whole else MeshSpec(fsdp=-1), devices)
