"""The cost of adding members to a population: its parts measured alone, and the figure."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from matplotlib.figure import Figure

from immunax.inner.member import Track, begin, follow
from immunax.models.config import DecoderConfig
from immunax.models.flops import projections
from immunax.models.lora import LoraSpec


class Cost(NamedTuple):
    """What a population of some size costs.

    Attributes:
      title: of the population.
      members: A.
      whole: seconds a step of all members.
      products: seconds that the step's matrix products take alone, at the same shapes.
      optimizer: seconds that the optimizer and the watch for divergence take alone.
      memory: bytes, by XLA's count.
      rate: useful FLOP/s.
    """

    title: str
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
        return f"| {self.title} | {self.members} | {times} | {shares} | {self.memory / 2**20:,.0f} | {self.rate / peak:.0%} |"


def products_alone(
    config: DecoderConfig, spec: LoraSpec | None, members: int, rows: Sequence[int], answers: Sequence[int]
) -> tuple[Callable[..., Any], tuple]:
    """A jitted function that makes the products of weights of one step and nothing else, and its inputs.

    Without adapters each member has weights of its own; with them all rows of all members meet one base.

    Args:
      config: of the decoder.
      spec: adapters, or None for full weights.
      members: A.
      rows: ``[B, T]``.
      answers: ``[B, A]``.
    """
    tokens, predicted = rows[0] * rows[1], answers[0] * answers[1]
    shapes = [(tokens, *shape) for shape in projections(config).values()]

    def three(x: jax.Array, w: jax.Array, dy: jax.Array) -> tuple:
        transposed = dy @ jnp.swapaxes(w, -1, -2)
        return (x @ w, transposed, jnp.swapaxes(x, -1, -2) @ dy) if x.ndim == 3 else (x @ w, transposed)

    def operands(n: int, into: int, out: int) -> tuple:
        lead = (members,) if spec is None else ()
        n = n if spec is None else n * members
        return jnp.ones((*lead, n, into)), jnp.ones((*lead, into, out)), jnp.ones((*lead, n, out))

    inputs = [operands(*shape) for shape in shapes]
    head = operands(predicted, config.d_model, config.vocab_size)
    adapters = []
    if spec is not None:
        for name in spec.targets:
            into, out = projections(config)[name]
            for pair in ((into, spec.rank), (spec.rank, out)):
                adapters.append(
                    tuple(jnp.ones((members, *shape)) for shape in ((tokens, pair[0]), pair, (tokens, pair[1])))
                )
    one_layer = jax.jit(lambda parts: [three(*part) for part in parts])
    last = jax.jit(lambda part: three(*part))

    def run(parts: list, head: tuple) -> Any:
        for _ in range(config.n_layers):
            result = one_layer(parts)
        return result, last(head)

    return run, (inputs + adapters, head)


def optimizer_alone(optimizer: Any, weights: Any, full: bool, members: int) -> tuple[Callable[..., Any], tuple]:
    """A jitted step of descents whose gradient costs nothing: the loss is the sum of the weights.

    Args:
      optimizer: a dataclass of :mod:`immunax.inner.optimizers`.
      weights: of one member (``full``), or with a leading axis of members.
      full: weights are the same for all members at their start.
      members: A.
    """
    start = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (members, *leaf.shape)) if full else leaf[:members], weights
    )
    progress = jax.jit(jax.vmap(lambda weights: begin(optimizer, {}, weights)))(start)

    def loss(weights: Any, batch: jax.Array) -> jax.Array:
        return batch * jax.tree.reduce(jnp.add, jax.tree.map(jnp.sum, weights))

    def member(progress: Any, rate: jax.Array) -> Any:
        return follow(loss, optimizer, progress, Track(rate[None], {}, rate[None]))

    return jax.jit(jax.vmap(member)), (progress, jnp.full(members, 1e-4))


def draw(costs: Sequence[Cost], path: Path) -> None:
    """Time per step and member with its parts, and memory, by members; one column a population."""
    titles = list(dict.fromkeys(each.title for each in costs))
    canvas = Figure(figsize=(5 * len(titles), 6.4), layout="constrained")
    axes = canvas.subplots(2, len(titles), squeeze=False, sharex="col")
    for column, title in enumerate(titles):
        mine = [each for each in costs if each.title == title]
        members = [each.members for each in mine]
        times, memory = axes[0][column], axes[1][column]
        for label, values in (
            ("whole step", [each.whole for each in mine]),
            ("its matrix products alone", [each.products for each in mine]),
            ("its optimizer alone", [each.optimizer for each in mine]),
        ):
            times.plot(
                members,
                [1e3 * value / each.members for value, each in zip(values, mine, strict=True)],
                "o-",
                label=label,
            )
        times.set(title=title, ylabel="ms a step and member", ylim=(0, None))
        times.legend(frameon=False)
        last = mine[-1]
        rest = 1 - (last.products + last.optimizer) / last.whole
        times.set_xlabel(
            f"{last.members} members: products {last.products / last.whole:.0%}, optimizer {last.optimizer / last.whole:.0%},\n"
            f"attention, elementwise, copies and dispatch {rest:.0%}"
        )
        memory.plot(members, [each.memory / 2**20 for each in mine], "o-")
        slope = (last.memory - mine[0].memory) / max(1, last.members - mine[0].members) / 2**20
        memory.text(0.03, 0.9, f"{slope:,.0f} MiB a member", transform=memory.transAxes)
        memory.set(xlabel="members", ylabel="MiB", ylim=(0, None), xscale="log")
        memory.set_xticks(members, [str(each) for each in members])
        memory.minorticks_off()
    canvas.savefig(path, dpi=150)
