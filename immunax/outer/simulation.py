"""The data of an attack that a defense simulates: what the attacker trains on, and what the defender checks him with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from immunax.data.batches import Batch, pack, pad, stack
from immunax.data.chat import Counts, Encoded, encode_all, encode_pairs
from immunax.data.dialog import Split
from immunax.data.order import Stream
from immunax.data.packing import Layout, Tokens, filled, fit_packed, fit_padded
from immunax.runtime.errors import UserError


@dataclass(frozen=True)
class Simulation:
    """How many examples an outer step's simulated attack takes.

    Attributes:
      steps: K, inner steps.
      batch: harmful examples an inner step.
      checks: S, how many held-out batches the attacked weights are checked on along the way; divides K.
      check: harmful examples of a check; none of them is among the same attack's.
      paired: a check also has the safe answers to its prompts, row by row.
      mixed: there are also K harmless batches of the attack's shape, for attackers who mix or begin with them.
      same_check: one held-out batch serves all checks of an attack.
    """

    steps: int
    batch: int
    checks: int = 1
    check: int = 4
    paired: bool = False
    mixed: bool = False
    same_check: bool = False

    def __post_init__(self):
        if min(self.steps, self.batch, self.checks, self.check) < 1:
            raise UserError(f"{self}: expected counts of at least 1.")
        if self.steps % self.checks:
            raise UserError(f"simulation.checks={self.checks}: expected a divisor of simulation.steps={self.steps}.")


class SimulatedAttack(NamedTuple):
    """One outer step's data for its inner loop.

    Attributes:
      harmful: ``[K, B, T]``, what the attacker trains on.
      checks: ``[S, B, T]``, held-out harmful answers.
      safe_checks: the safe answers to the same prompts, of the same shape, or None.
      retain: ``[K, B, T]`` harmless batches of the shape of ``harmful``, or None.
      member: the :class:`~immunax.outer.attacker_population.DrawnAttacker` who attacks, where attackers are a population.
    """

    harmful: Batch
    checks: Batch
    safe_checks: Batch | None = None
    retain: Batch | None = None
    member: Any = None


@dataclass(frozen=True)
class SimulationFeed:
    """Simulated attacks by outer step, all of one static shape.

    Attributes:
      simulation: the counts.
      harmful: shuffled anew at every step; its first examples are the attack's, the next the checks'.
      safe: the safe answers to the same prompts in the same order, or None.
      retain: harmless examples, or None.
      attack_layout, check_layout: static shapes.
      tokens: of all batches of a run, of ``attack`` and of ``checks``.
    """

    simulation: Simulation
    harmful: Stream
    safe: Stream | None
    retain: Stream | None
    attack_layout: Layout
    check_layout: Layout
    tokens: Mapping[str, Tokens]

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return max(each.longest for each in (self.harmful, self.safe, self.retain) if each is not None)

    def attack(self, step: int) -> SimulatedAttack:
        """The data of outer step ``step``, a pure function of it."""
        attack, checks = _cut(self.harmful.batch(step), self.simulation)
        lay = pad if self.safe is not None else pack
        safe = retain = None
        if self.safe is not None:
            safe = stack([pad(part, self.check_layout) for part in _cut(self.safe.batch(step), self.simulation)[1]])
        if self.retain is not None:
            retain = stack(
                [pack(part, self.attack_layout) for part in _attack_parts(self.retain.batch(step), self.simulation)]
            )
        return SimulatedAttack(
            stack([pack(part, self.attack_layout) for part in attack]),
            stack([lay(part, self.check_layout) for part in checks]),
            safe,
            retain,
        )


def simulation_feed(
    tokenizer: Any, split: Split, simulation: Simulation, steps: int, max_length: int, seed: int, divisor: int = 1
) -> tuple[SimulationFeed, Counts]:
    """Encodes what simulated attacks train on and fixes the static shapes that hold all of a run.

    Args:
      tokenizer: the model's.
      split: the training split.
      simulation: the counts.
      steps: outer steps of the run.
      max_length: tokens an example may have.
      seed: of the order.
      divisor: rows of a batch are a multiple of it.

    Returns:
      The feed, and how many harmful dialogs were kept, cut and dropped.

    Raises:
      UserError: the data lack a stream, or have fewer harmful examples than one attack and its checks take.
    """
    names = ["harmful", *(["safe"] if simulation.paired else []), *(["retain"] if simulation.mixed else [])]
    for name in names:
        if not getattr(split, name):
            raise UserError(f"the simulated attack needs the stream {name!r}, which the data lack: choose other data.")
    safe = retain = None
    if simulation.paired:
        safe, harmful, (_, counts) = encode_pairs(tokenizer, split.safe, split.harmful, max_length)
    else:
        harmful, counts = encode_all(tokenizer, split.harmful, max_length)
    held_out = 1 if simulation.same_check else simulation.checks
    count = simulation.steps * simulation.batch + held_out * simulation.check
    if count > len(harmful):
        raise UserError(
            f"a simulated attack and its checks take {count} harmful examples, and the data have {len(harmful)}: lower "
            "simulation.steps or simulation.batch."
        )
    # A whole epoch a step, of which the first ``count`` are taken: none comes twice in one attack.
    stream = Stream(harmful, len(harmful), seed)
    safe_stream = None if safe is None else Stream(safe, len(safe), seed)
    if simulation.mixed:
        retain, _ = encode_all(tokenizer, split.retain, max_length)
    retain_stream = None if retain is None else Stream(retain, simulation.steps * simulation.batch, seed)
    parts = [_cut(batch, simulation) for batch in stream.batches(range(steps))]
    attacks, checks = ([part for each in parts for part in each[side]] for side in (0, 1))
    if retain_stream is not None:
        attacks += [part for batch in retain_stream.batches(range(steps)) for part in _attack_parts(batch, simulation)]
    layout = fit_packed(attacks, divisor)
    if safe_stream is None:
        check_layout = fit_packed(checks, divisor)
    else:
        checks += [part for batch in safe_stream.batches(range(steps)) for part in _cut(batch, simulation)[1]]
        check_layout = fit_padded(checks, divisor)
    tokens = {"attack": filled(attacks, layout), "checks": filled(checks, check_layout)}
    return SimulationFeed(simulation, stream, safe_stream, retain_stream, layout, check_layout, tokens), counts


def _attack_parts(examples: Sequence[Encoded], simulation: Simulation) -> list[Sequence[Encoded]]:
    size = simulation.batch
    return [examples[k * size : (k + 1) * size] for k in range(simulation.steps)]


def _cut(examples: Sequence[Encoded], simulation: Simulation) -> tuple[list, list]:
    rest, size = examples[simulation.steps * simulation.batch :], simulation.check
    places = [0 if simulation.same_check else s for s in range(simulation.checks)]
    return _attack_parts(examples, simulation), [rest[s * size : (s + 1) * size] for s in places]
