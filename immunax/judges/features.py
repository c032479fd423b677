"""Answers as vectors, for a classifier's head: their words, or what a small language model makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from immunax.data.chat import Encoded, encode_all
from immunax.data.dialog import Dialog
from immunax.models.hub import ModelSource
from immunax.models.model import Model, Params
from immunax.runtime.errors import UserError
from immunax.runtime.together import behind

State = dict[str, np.ndarray]
"""What features were fitted to their training data, float32."""


class Features(Protocol):
    """Maps dialogs with answers, none of them blank, to vectors."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that the vectors depend on beside the state; JSON-able."""
        ...

    @property
    def described(self) -> str:
        """They, in a few words."""
        ...

    def fit(self, dialogs: Sequence[Dialog]) -> tuple[State, Any]:
        """Fits to N dialogs: the state, and their vectors ``[N, F]``, dense or sparse."""
        ...

    def vectors(self, state: State, dialogs: Sequence[Dialog]) -> Any:
        """The vectors ``[N, F]`` of N dialogs, dense or sparse."""
        ...


@dataclass(frozen=True)
class Words:
    """Words and pairs of words of the answer, weighted by rarity (TF-IDF), by hash: no word is stored.

    The prompt is left out: where harmful and safe answers come from two sets of prompts it would give the set away.

    Attributes:
      buckets: F; words that share one are not told apart.
    """

    buckets: int = 2**16

    def __post_init__(self) -> None:
        if self.buckets < 1:
            raise UserError(f"word features buckets={self.buckets}: expected at least 1.")

    @property
    def identity(self) -> Mapping[str, Any]:
        """The settings."""
        return {"features": "words", "buckets": self.buckets}

    @property
    def described(self) -> str:
        """The kind."""
        return "TF-IDF of words and pairs of words"

    def fit(self, dialogs: Sequence[Dialog]) -> tuple[State, csr_matrix]:
        """Counts in how many answers each word stands."""
        counts = self._counts(dialogs)
        state = {"idf": TfidfTransformer().fit(counts).idf_.astype(np.float32)}
        return state, self._weighted(state, counts)

    def vectors(self, state: State, dialogs: Sequence[Dialog]) -> csr_matrix:
        """Weighted words, each row of length 1."""
        return self._weighted(state, self._counts(dialogs))

    def _counts(self, dialogs: Sequence[Dialog]) -> csr_matrix:
        words = HashingVectorizer(
            n_features=self.buckets,
            ngram_range=(1, 2),
            norm=None,  # pyright: ignore[reportArgumentType]
            alternate_sign=False,
        )
        return words.transform(dialog.answer for dialog in dialogs)  # pyright: ignore[reportReturnType]

    def _weighted(self, state: State, counts: csr_matrix) -> csr_matrix:
        weights = TfidfTransformer(sublinear_tf=True)
        weights.idf_ = np.asarray(state["idf"], np.float64)
        return weights.transform(counts)  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class HiddenStates:
    """The mean hidden state of a language model over the answer's tokens, each number standardised on training data.

    The model reads prompt and answer as a chat; the mean is over the answer alone, after the final norm.

    Attributes:
      source: of the model.
      layers: its first ones, that are run; None runs all.
      max_length: tokens of prompt and answer: at most the last half of them for the prompt, the first rest for the answer.
      batch_size: dialogs at once.
    """

    source: ModelSource
    layers: int | None = None
    max_length: int = 128
    batch_size: int = 16

    def __post_init__(self) -> None:
        for name in ("layers", "max_length", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < (2 if name == "max_length" else 1):
                raise UserError(f"hidden-state features {name}={value}: expected more.")

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The digests of the model's files, and the settings."""
        return {
            "features": "hidden states",
            "files": dict(self._loaded.digests),
            "layers": self.layers,
            "max_length": self.max_length,
        }

    @property
    def described(self) -> str:
        """Model and depth."""
        depth = "" if self.layers is None else f", {self.layers} layers deep"
        return f"mean hidden states of {self.source.path}{depth}"

    def fit(self, dialogs: Sequence[Dialog]) -> tuple[State, np.ndarray]:
        """Means and deviations over the dialogs."""
        raw = self._means(dialogs)
        state = {"mean": raw.mean(axis=0), "deviation": raw.std(axis=0) + np.float32(1e-6)}
        return state, (raw - state["mean"]) / state["deviation"]

    def vectors(self, state: State, dialogs: Sequence[Dialog]) -> np.ndarray:
        """Standardised means ``[N, D]``."""
        return (self._means(dialogs) - state["mean"]) / state["deviation"]

    @cached_property
    def _loaded(self) -> Any:
        return self.source.load()

    @cached_property
    def _shallow(self) -> tuple[Model, Params]:
        config, params = self._loaded.config, self._loaded.params
        depth = config.n_layers if self.layers is None else self.layers
        if depth > config.n_layers:
            raise UserError(f"hidden-state features layers={depth}: the model has {config.n_layers}.")
        kept = {**params, "layers": jax.tree.map(lambda leaf: leaf[:depth], params["layers"])}
        return Model(replace(config, n_layers=depth)), jax.device_put(kept)

    def _means(self, dialogs: Sequence[Dialog]) -> np.ndarray:
        tokenizer, (model, params) = self._loaded.tokenizer, self._shallow
        examples, _ = encode_all(tokenizer, dialogs, 2**30)
        pieces = [_cut(example, self.max_length) for example in examples]
        order = np.argsort([len(piece.tokens) for piece in pieces], kind="stable")
        chosen = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        rows = (_rectangle([pieces[place] for place in places], self.batch_size) for places in chosen)
        found = np.zeros((len(pieces), model.config.d_model), np.float32)
        for places, means in zip(chosen, behind(_answer_means(model, params, *each) for each in rows), strict=True):
            found[places] = means[: len(places)]
        return found


def _cut(example: Encoded, limit: int) -> Encoded:
    prompt = example.prompt[-(limit // 2) :]
    return Encoded(prompt, example.answer[: limit - len(prompt)])


_WIDTH = 32
"""Rows are padded to a multiple of it, so that few shapes are compiled."""


def _rectangle(pieces: Sequence[Encoded], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    width = -(-max(len(piece.tokens) for piece in pieces) // _WIDTH) * _WIDTH
    tokens, real, answer = np.zeros((3, size, width), np.int32)
    for row, piece in enumerate(pieces):
        end = len(piece.tokens)
        tokens[row, :end], real[row, :end], answer[row, len(piece.prompt) : end] = piece.tokens, 1, 1
    return tokens, real, answer


@partial(jax.jit, static_argnums=0)
def _answer_means(model: Model, params: Params, tokens, real, answer) -> jax.Array:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = model.apply(params, tokens, real, positions).hidden.astype(jnp.float32)
    weight = answer[..., None].astype(jnp.float32)
    return (hidden * weight).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1)
