"""What a defense is: a loss on weights, and the mixture of data it is taken on."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from immunax.models.model import Model, Params
from immunax.outer.simulation import Simulation
from immunax.runtime.errors import UserError

Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class Mixture:
    """How many examples of each stream an outer step takes.

    Attributes:
      safe, harmful, retain: examples a step; 0 leaves a stream out.
      paired: row i of ``safe`` and of ``harmful`` answer the same prompt, one example a row, in arrays of one shape;
        otherwise examples are packed, and their prompts may differ.
      simulation: data of an attack that the defense simulates, or None.
    """

    safe: int = 0
    harmful: int = 0
    retain: int = 0
    paired: bool = False
    simulation: Simulation | None = None

    def __post_init__(self):
        if min(self.safe, self.harmful, self.retain) < 0 or self.safe + self.harmful + self.retain == 0:
            raise UserError(f"{self}: expected counts of at least 0, one of them positive.")
        if self.paired and self.safe != self.harmful:
            raise UserError(f"{self}: paired streams need as many safe as harmful examples.")


class StreamBatch(NamedTuple):
    """One outer step's data: a :class:`~immunax.data.batches.Batch` of each stream, None where the mixture has none of it.

    ``simulation`` is the :class:`~immunax.outer.simulation.SimulatedAttack` of a defense that has one.
    """

    safe: Any = None
    harmful: Any = None
    retain: Any = None
    simulation: Any = None


class Defense(Protocol):
    """A defense; frozen, built from YAML. A new one is one file here and one YAML in ``conf/defense``."""

    @property
    def mixture(self) -> Mixture:
        """The data of an outer step."""
        ...

    def init(self, model: Model, params: Params, batch: StreamBatch, key: jax.Array) -> Any:
        """Whatever stays fixed or is carried beside the weights; ``()`` for most."""
        ...

    def loss(
        self, model: Model, params: Params, state: Any, batch: StreamBatch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The scalar to minimise, and scalars to log."""
        ...


@runtime_checkable
class Evolving(Protocol):
    """A defense whose state changes along the run: a schedule, layers drawn anew. Others have no such method."""

    def advance(
        self,
        model: Model,
        params: Params,
        state: Any,
        batch: StreamBatch,
        step: jax.Array,
        steps: int,
        key: jax.Array,
    ) -> Any:
        """The state for an outer step, before its loss; not differentiated.

        ``step`` counts the outer steps done, int32, and ``steps`` those of the run; the state keeps its shapes.
        """
        ...
