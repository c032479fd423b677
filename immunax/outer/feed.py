"""The data of a defense: encoded once, batched as a pure function of the step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import numpy as np

from immunax.data.batches import Batch, pack, pad
from immunax.data.chat import Counts, Encoded, encode_all, encode_pairs
from immunax.data.dialog import Dialog, Split
from immunax.data.emptied import emptied
from immunax.data.order import Batches, InTurn, Stream
from immunax.data.packing import Layout, Tokens, filled, fit_packed, fit_padded
from immunax.outer.defense import Mixture, StreamBatch
from immunax.outer.simulation import SimulationFeed, simulation_feed
from immunax.outer.training import Training
from immunax.runtime.errors import UserError, nearest


@dataclass(frozen=True)
class Feed:
    """The batches of a run, all of one static shape.

    Attributes:
      streams: the examples of each stream, in the run's order.
      layouts: the static shape of each stream's batches.
      lay: by stream, :func:`~immunax.data.batches.pack`, or ``pad`` for paired ones.
      counts: how many dialogs of each stream were kept, cut and dropped.
      tokens: of all batches of a run, by stream.
      simulation: data of simulated attacks, or None.
      accumulate: batches of the mixture that an outer step takes.
    """

    streams: Mapping[str, Batches]
    layouts: dict[str, Layout]
    lay: Mapping[str, Callable[[list[Encoded], Layout], Batch]]
    counts: dict[str, Counts]
    tokens: dict[str, Tokens]
    simulation: SimulationFeed | None = None
    accumulate: int = 1

    def batch(self, step: int) -> StreamBatch:
        """The data of outer step ``step``, a pure function of it: its batches one behind the other on the leading axes."""
        parts = [self._part(step * self.accumulate + part) for part in range(self.accumulate)]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(each.longest for each in (*self.streams.values(), *filter(None, [self.simulation])))

    def _part(self, step: int) -> StreamBatch:
        streams = {
            name: self.lay[name](stream.batch(step), self.layouts[name]) for name, stream in self.streams.items()
        }
        return StreamBatch(**streams, simulation=self.simulation.attack(step) if self.simulation else None)


def feed(tokenizer: Any, split: Split, mixture: Mixture, training: Training, divisor: int = 1) -> Feed:
    """Encodes what a mixture asks for and fixes the static shapes that hold every batch of the run.

    Args:
      tokenizer: the model's.
      split: the training split.
      mixture: examples of a batch.
      training: steps, batches of each, tokens an example may have, and the seed of the order.
      divisor: rows of a batch are a multiple of it (the data axes of a mesh).

    Returns:
      :class:`Feed`.

    Raises:
      UserError: the mixture asks for a stream or a topic that the data lack, or for pairs where prompts differ.
    """
    steps, max_length, seed = training.steps * training.accumulate, training.max_length, training.seed
    split = emptied(split, mixture.emptied, seed)
    sizes = {name: getattr(mixture, name) for name in ("safe", "harmful", "retain") if getattr(mixture, name)}
    for name in sizes:
        if not getattr(split, name):
            raise UserError(f"the defense trains on the stream {name!r}, which the data lack: choose other data.")
    paired = ("safe", "harmful") if mixture.paired else ()
    alone = [name for name in sizes if name not in paired]
    examples: dict[str, list[Encoded]] = {}
    counts: dict[str, Counts] = {}
    if paired:
        *examples_of_pairs, counts_of_pairs = encode_pairs(tokenizer, split.safe, split.harmful, max_length)
        examples |= zip(paired, examples_of_pairs, strict=True)
        counts |= zip(paired, counts_of_pairs, strict=True)
    streams: dict[str, Batches] = {name: Stream(examples[name], sizes[name], seed) for name in examples}
    for name in alone:
        parts = _topics(split.harmful, mixture.topics) if name == "harmful" else [getattr(split, name)]
        encoded = [encode_all(tokenizer, part, max_length) for part in parts]
        turns = [Stream(kept, sizes[name], seed) for kept, _ in encoded]
        streams[name], counts[name] = (
            InTurn(turns, training.accumulate),
            reduce(Counts.plus, (each for _, each in encoded)),
        )
    batches = {name: [stream.batch(step) for step in range(steps)] for name, stream in streams.items()}
    fit, lay_alone = (fit_packed, pack) if mixture.packed else (fit_padded, pad)
    layouts = {name: fit(batches[name], divisor) for name in alone}
    if paired:
        fitted = {name: fit_padded(batches[name], divisor) for name in paired}
        length = max(layout.length for layout in fitted.values())
        layouts |= {name: replace(layout, length=length) for name, layout in fitted.items()}
    lay = dict.fromkeys(alone, lay_alone) | dict.fromkeys(paired, pad)
    tokens = {name: filled(batches[name], layout) for name, layout in layouts.items()}
    if mixture.simulation is None:
        return Feed(streams, layouts, lay, counts, tokens, accumulate=training.accumulate)
    simulated, counts["simulation"] = simulation_feed(
        tokenizer, split, mixture.simulation, steps, max_length, seed, divisor
    )
    tokens |= {f"simulation_{name}": each for name, each in simulated.tokens.items()}
    return Feed(streams, layouts, lay, counts, tokens, simulated, training.accumulate)


def _topics(dialogs: Sequence[Dialog], topics: Sequence[str]) -> list[list[Dialog]]:
    """Those of each topic, or all in one where none is named."""
    known = sorted({dialog.topic for dialog in dialogs} - {""})
    for topic in topics:
        if topic not in known:
            have = f"the harmful sources of the data are {', '.join(known)}" if known else "the data name no topics"
            raise UserError(
                f"mixture.topics has {topic!r}, and {have}.{nearest(topic, known)} [] draws from all at once."
            )
    return [[each for each in dialogs if each.topic == topic] for topic in topics] or [list(dialogs)]
