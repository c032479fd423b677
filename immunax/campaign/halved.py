"""Successive halving of the members of a program, led by the same stretches of steps as any attack."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from immunax.campaign.members import chosen
from immunax.campaign.population import Attacked, Runner, Turn
from immunax.inner.halving import Best, Merit, Ranked, Rung, halve
from immunax.inner.state import Trace


def halved(
    runner: Runner,
    rungs: Sequence[Rung],
    merit: Callable[[Attacked], Merit],
    told: Callable[[Ranked], Any] = lambda ranked: None,
) -> tuple[Best | None, tuple[Ranked, ...]]:
    """The search through the members of one program; see :func:`~immunax.inner.halving.halve`.

    Args:
      runner: the members.
      rungs: of the search.
      merit: of members that ran together, ``[M]``, on the host.
      told: called with what each rung saw, as soon as it has.

    Raises:
      UserError: not even one member at a time fits beside the states of all.
    """
    search = _Search(runner, merit)
    return halve(rungs, search.take, search.keep, told)


class _Search:
    """The turns that members take in a rung, whose states wait on the devices for the next one."""

    def __init__(self, runner: Runner, merit: Callable[[Attacked], Merit]):
        self._runner, self._merit = runner, merit
        self._turns: list[Turn] = []

    def take(self, rung: Rung, places: np.ndarray) -> tuple[Trace, np.ndarray, Merit]:
        """See :data:`~immunax.inner.halving.Take`."""
        width = self._runner.width(len(places), kept=True)
        groups = [places[start : start + width] for start in range(0, len(places), width)]
        if self._turns:
            self._turns = _regrouped(self._runner, self._turns, groups, width)
        else:
            self._turns = [Turn(self._runner, group.tolist(), width) for group in groups]
        found = []
        for turn in self._turns:
            attacked = turn.lead(rung.end)
            trace = Trace(*(each[:, rung.begin :] for each in (attacked.losses, attacked.norms)))
            found.append((trace, attacked.diverged_at, self._merit(attacked)))
            turn.wait()
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)

    def keep(self, row: int) -> Any:
        """A copy of what a member has trained, by its row in the last rung."""
        for turn in self._turns:
            if row < len(turn.rows):
                return chosen(turn.state[0].trained, row)
            row -= len(turn.rows)
        raise ValueError(f"the last rung has no row {row}")


def _regrouped(runner: Runner, turns: Sequence[Turn], groups: Sequence[np.ndarray], width: int) -> list[Turn]:
    """Turns of members that go on; the states of all others are let go."""
    if all(turn.width == width == 1 for turn in turns):
        there = {turn.rows[0]: turn for turn in turns}
        return [there[place] for (place,) in groups]
    first = np.cumsum([0, *(turn.width for turn in turns)])
    lies = {row: first[n] + i for n, turn in enumerate(turns) for i, row in enumerate(turn.rows)}
    places = [np.array([lies[row] for row in group]) for group in groups]
    wide = [np.pad(each, (0, width - len(each)), "edge") for each in places]
    leaves, structure = zip(*(jax.tree.flatten(turn.state) for turn in turns), strict=True)
    gathered = []
    # Leaf by leaf, so that what is let go and what goes on do not lie there at once.
    for parts in zip(*leaves, strict=True):
        gathered.append([_gathered(parts, each) for each in wide])
        for part in parts:
            part.delete()
    states = [jax.tree.unflatten(structure[0], each) for each in zip(*gathered, strict=True)]
    done = turns[0].done
    return [Turn(runner, group.tolist(), width, state, done) for group, state in zip(groups, states, strict=True)]


@jax.jit
def _gathered(parts: Sequence[jax.Array], places: np.ndarray) -> jax.Array:
    return jnp.concatenate(parts)[places]
