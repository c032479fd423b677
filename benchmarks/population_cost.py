"""The cost of adding members to a population: its parts measured alone, and the figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from immunax.inner.state import begin
from immunax.inner.step import scan_steps, slope_of
from immunax.models.config import DecoderConfig
from immunax.models.lora import LoraSpec


class Cost(NamedTuple):
    """What a population of some size costs.

    Attributes:
      title: of the population.
      way: how its members run.
      members: A.
      whole: seconds a step of all members.
      products: seconds that the step's matrix products take alone, at the same shapes in the same turns.
      optimizer: seconds that the optimizer and the watch for divergence take alone.
      memory: bytes of all devices, by XLA's count.
      rate: useful FLOP/s.
    """

    title: str
    way: str
    members: int
    whole: float
    products: float
    optimizer: float
    memory: int
    rate: float

    def row(self, peak: float) -> str:
        """Of the table."""
        times = f"{1e3 * self.whole:,.0f} | {1e3 * self.whole / self.members:,.1f}"
        shares = f"{self.products / self.whole:.0%} | {self.optimizer / self.whole:.0%}"
        memory = f"{self.memory / 2**20:,.0f} | {self.rate / peak:.0%}"
        return f"| {self.title}, {self.way} | {self.members} | {times} | {shares} | {memory} |"


class Operands(NamedTuple):
    """What one projection multiplies in every layer: inputs ``[n, in]``, gradients of outputs ``[n, out]``."""

    x: jax.Array
    dy: jax.Array


@dataclass(frozen=True)
class Products:
    """The products of weights of one member's steps and nothing else: a :data:`~immunax.inner.population.Member`.

    Attributes:
      config: of the decoder.
      spec: adapters, or None for full weights.
      steps: K.
    """

    config: DecoderConfig
    spec: LoraSpec | None
    steps: int

    def inputs(self, members: int, rows: Sequence[int], answers: Sequence[int]) -> tuple[Any, Any]:
        """What is each member's (its operands, and its number) and what all share (kernels ``[L, in, out]``).

        Args:
          members: A.
          rows: ``[B, T]``.
          answers: ``[B, A]``.
        """
        shapes = {**self.config.projections(), "head": (self.config.d_model, self.config.vocab_size)}
        for name in self.spec.targets if self.spec else ():
            (into, out), rank = shapes[name], self.spec.rank if self.spec else 0
            shapes |= {f"{name}.a": (into, rank), f"{name}.b": (rank, out)}
        counts = {name: math.prod(answers if name == "head" else rows) for name in shapes}
        layers = {name: 1 if name == "head" else self.config.n_layers for name in shapes}
        own = {
            name: Operands(jnp.ones((members, counts[name], into)), jnp.ones((members, counts[name], out)))
            for name, (into, out) in shapes.items()
        }
        return (own, jnp.arange(float(members))), {name: jnp.ones((layers[name], *shapes[name])) for name in shapes}

    def __call__(self, member: tuple[dict[str, Operands], jax.Array], shared: dict[str, jax.Array]) -> Any:
        """Sums of the last layer's products: all are made anew in every step, into the same place."""
        own, number = member
        # What is trained is each member's own.
        kernels = {name: each + number if self._trained(name) else each for name, each in shared.items()}
        head = kernels.pop("head")[0]

        def layer(_: Any, parts: dict[str, jax.Array]) -> tuple[Any, None]:
            return {name: _three(own[name], each, self._trained(name)) for name, each in parts.items()}, None

        def step(results: Any, _: None) -> tuple[Any, None]:
            inner, _ = jax.lax.scan(layer, results[0], kernels)
            return (inner, _three(own["head"], head, self._trained("head"))), None

        shapes = (
            layer(None, jax.tree.map(lambda leaf: leaf[0], kernels))[0],
            _three(own["head"], head, self._trained("head")),
        )
        results, _ = jax.lax.scan(step, jax.tree.map(jnp.zeros_like, shapes), length=self.steps)
        return jax.tree.map(jnp.sum, results)

    def _trained(self, name: str) -> bool:
        return self.spec is None or "." in name


def _three(operands: Operands, kernel: jax.Array, trained: bool) -> tuple[jax.Array, ...]:
    x, dy = operands
    return (x @ kernel, dy @ kernel.T, *((x.T @ dy,) if trained else ()))


@dataclass(frozen=True)
class Updates:
    """Steps of a descent whose gradient costs nothing, as a member: the loss is the sum of the weights.

    Attributes:
      optimizer: a dataclass of :mod:`immunax.inner.optimizers`.
      steps: K.
    """

    optimizer: Any
    steps: int

    def inputs(self, weights: Any, members: int) -> tuple[Any, Any]:
        """Rates ``[A, K]``, and the weights that all start from."""
        return jnp.full((members, self.steps), 1e-4), weights

    def __call__(self, rates: jax.Array, weights: Any) -> jax.Array:
        """The losses before each step."""
        optimizer = self.optimizer.build(self.steps, {"learning_rate": rates})
        return scan_steps(slope_of(_sum), optimizer, begin(optimizer, weights), jnp.ones(self.steps))[1]["loss"]


def _sum(weights: Any, batch: jax.Array) -> jax.Array:
    return batch * jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, weights))


def draw(costs: Sequence[Cost], path: Path) -> None:
    """Time per step and member with its parts, and memory, by members; one column a population."""
    titles, ways = ([*dict.fromkeys(getattr(each, name) for each in costs)] for name in ("title", "way"))
    canvas = Figure(figsize=(5 * len(titles), 6.4), layout="constrained")
    axes = canvas.subplots(2, len(titles), squeeze=False, sharex="col")
    for column, title in enumerate(titles):
        times, memory = axes[0][column], axes[1][column]
        for way, colour in zip(ways, ("C0", "C1"), strict=False):
            mine = [each for each in costs if (each.title, each.way) == (title, way)]
            members = [each.members for each in mine]
            for name, style in (("whole", "o-"), ("products", "s--"), ("optimizer", "^:")):
                spent = [1e3 * getattr(each, name) / each.members for each in mine]
                label = way if name == "whole" else f"its {name} alone, {way}"
                times.plot(members, spent, style, color=colour, label=label)
            memory.plot(members, [each.memory / 2**20 for each in mine], "o-", color=colour, label=way)
        times.set(title=title, ylabel="ms a step and member", ylim=(0, None))
        memory.set(xlabel="members", ylabel="MiB", ylim=(0, None), xscale="log")
        memory.set_xticks(members, [str(each) for each in members])
        memory.minorticks_off()
    canvas.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    canvas.savefig(path, dpi=150)
