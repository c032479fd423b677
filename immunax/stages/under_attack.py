"""Attack one model, in one way or in several, score it before and after, keep scores and no answers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from immunax.attacks.attack import Edit, FineTuning
from immunax.campaign.course import Point, course, paid
from immunax.campaign.population import attacked
from immunax.campaign.programs import Program, programs
from immunax.conditions.episode import Course, Episode
from immunax.conditions.fall import shown_fallen
from immunax.data.dialog import Splits
from immunax.judges.evaluate import Given, Material, Scores, batch_count, judged
from immunax.models.model import Model, Params
from immunax.runtime import console, goodput, performance
from immunax.runtime.errors import DivergedError, UserError
from immunax.runtime.together import check_same_end
from immunax.stages.asking import given_by
from immunax.stages.red_team import RedTeam


class Assault(NamedTuple):
    """One of several attacks on one model.

    Attributes:
      team: the attack and what is asked, from :func:`~immunax.stages.red_team.assemble`.
      seed: of every random key.
      keep: what else is done with the attacked weights, plain or adapted, before they are scored.
    """

    team: RedTeam
    seed: int
    keep: Callable[[Params], None] | None = None


class Together(NamedTuple):
    """Fine-tunings that run as populations and are asked at the same parts of their courses.

    Attributes:
      places: which of the attacks these are.
      parts: their programs.
      times: in how many parts they are asked.
    """

    places: tuple[int, ...]
    parts: tuple[Program, ...]
    times: int


def populations(assaults: Sequence[Assault], tokenizer: Any, splits: Splits) -> list[Together]:
    """The fine-tunings among some attacks, those of one program in shapes that they share.

    Args:
      assaults: any attacks; edits stay alone.
      tokenizer: the model's.
      splits: the data that the teams were assembled of.
    """
    if len(assaults) == 1:
        return _alone(assaults[0].team)
    found: dict[int, dict[int, FineTuning]] = {}
    for place, each in enumerate(assaults):
        if isinstance(each.team.attack, FineTuning):
            found.setdefault(each.team.attack.tuning.probes, {})[place] = each.team.attack
    return [
        Together(tuple(attacks), programs(list(attacks.values()), tokenizer, splits), times)
        for times, attacks in found.items()
    ]


def _alone(team: RedTeam) -> list[Together]:
    """A fine-tuning in the shapes that it has by itself."""
    attack = team.attack
    return [Together((0,), (team.material,), attack.tuning.probes)] if isinstance(attack, FineTuning) else []


def red_team(
    team: RedTeam,
    model: Model,
    params: Params,
    tokenizer: Any,
    name: str,
    seed: int,
    before: Scores | None = None,
    keep: Callable[[Params], None] | None = None,
) -> Episode:
    """Scores, attacks and scores again.

    Args:
      team: from :func:`~immunax.stages.red_team.assemble`.
      model: static.
      params: plain weights; untouched.
      tokenizer: the model's.
      name: of the model, for the progress bars.
      seed: of every random key.
      before: scores before the attack where they are known already, as of another attack on the same model.
      keep: what else is done with the attacked weights, plain or adapted, before they are scored.

    Returns:
      :class:`~immunax.conditions.episode.Episode`.

    Raises:
      UserError: the attack's loss is not finite, as :class:`~immunax.runtime.errors.DivergedError`, or what it leaves cannot be
        scored.
    """
    assault = Assault(team, seed, keep)
    ((_, found),) = red_teams([assault], _alone(team), model, params, tokenizer, name, before)
    if isinstance(found, UserError):
        raise found
    return found


def red_teams(
    assaults: Sequence[Assault],
    parts: Sequence[Together],
    model: Model,
    params: Params,
    tokenizer: Any,
    name: str,
    before: Scores | None = None,
) -> Iterator[tuple[int, Episode | UserError]]:
    """Scores one model, attacks it in several ways and scores it after each; what ends one attack ends no other.

    Args:
      assaults: whose teams evaluate alike.
      parts: from :func:`populations`.
      model, params, tokenizer, name: as for :func:`red_team`.
      before: scores before the attacks, where they are known already.

    Yields:
      As soon as an attack has ended, its place and what it came to.
    """
    several = len(assaults) > 1
    known: dict[int | None, Given] = {}
    courses = [_Course(each, model, params, tokenizer, name, before, known) for each in assaults]
    total = 1 if several or not parts else parts[0].parts[0].steps
    with nullcontext() if several else console.progress(f"attack {name}", total, "step") as bar:
        for each, point in _points(courses, parts, model, params):
            with each.apart():
                each.meet(point, bar)
            del point  # its weights would lie beside those of the next steps
            if each.over and several:
                yield courses.index(each), each.end()
    ended = None if several else courses[0].end()
    performance.end(name)
    if ended is not None:
        yield 0, ended


def _points(
    courses: Sequence["_Course"], parts: Sequence[Together], model: Model, params: Params
) -> Iterator[tuple["_Course", Point]]:
    """Every attack that is not over, after each part of its course."""
    for each in courses:
        if isinstance(each.team.attack, Edit):
            points = course(each.team.attack, each.team.material, model, params, each.attack_key)
            for point in goodput.spent_on("attack", points):
                yield each, point
    for population in parts:
        mine = [courses[place] for place in population.places]
        keys = jnp.stack([each.attack_key for each in mine])
        turns = attacked(population.parts, model, params, keys, times=population.times)
        with goodput.spending("attack"):
            turn = next(turns, None)
        while turn is not None:
            there = [mine[place] for place in turn.places]
            for index, each in enumerate(there):
                if not each.over:
                    yield each, Point(turn.step, turn.losses[index], turn.weights(index))
            enough = all(each.over for each in there)
            try:
                with goodput.spending("attack"):
                    turn = turns.send(enough)
            except StopIteration:
                break


class _Course:
    """One attack on its way: what was seen of it so far."""

    def __init__(
        self,
        assault: Assault,
        model: Model,
        params: Params,
        tokenizer: Any,
        name: str,
        before: Scores | None,
        known: dict[int | None, Given],
    ):
        self.team, self.keep, self.name = assault.team, assault.keep, name
        self.model, self.tokenizer, self.params = model, tokenizer, params
        self.attack_key, before_key, self.after_key = jax.random.split(jax.random.key(assault.seed), 3)
        self.probe_key, self.before, first = jax.random.split(self.attack_key)[1], before, None
        if before is None:
            # What is drawn without chance is the same whatever the seed.
            drawn = assault.seed if self.team.evaluation.decoding.temperature > 0 else None
            if drawn not in known:
                known[drawn] = _given(self.team, model, params, self.team.before, before_key, f"evaluate {name}")
            self.before = judged(self.team.evaluation, tokenizer, self.team.before, known[drawn])
            first = known[drawn] if _same(self.team.before, self.team.after) else None
        self.probes = [_probed(self.team, model, params, tokenizer, self.probe_key, first)]
        self.steps, self.over = [0], False
        self.last: Point | None = None
        self.failed: UserError | None = None

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is wrong within the block ends this attack alone."""
        try:
            yield
        except UserError as error:
            self.failed, self.over = error, True
        check_same_end(self.name, int(self.failed is not None))

    def meet(self, point: Point, bar: console.Bar | None) -> None:
        """Takes a point of the course, which may be the last one.

        Raises:
          UserError: the attack has diverged, or its weights give no answers.
        """
        _check(point, self.name)
        if bar is not None:
            bar.advance(max(1, point.step - self.steps[-1]), **({"loss": point.losses[-1]} if point.step else {}))
        self.steps = [*self.steps, point.step]
        self.over = isinstance(self.team.attack, Edit) or point.step == self.team.material.steps
        if not self.over:
            key = jax.random.fold_in(self.probe_key, point.step)
            self.probes.append(_probed(self.team, self.model, point.weights, self.tokenizer, key, None))
            self.over = _fallen(self.team, self.probes[-1])
        self.last = point if self.over else None

    def end(self) -> Episode | UserError:
        """What the attack came to, while its weights are there; it lets them go."""
        last, self.last = self.last, None
        if self.failed is None:
            assert last is not None
            with self.apart():
                return self._scored(last)
        assert self.failed is not None
        return self.failed

    def _scored(self, last: Point) -> Episode:
        team = self.team
        assert self.before is not None
        if self.keep is not None:
            self.keep(last.weights)
        title = f"evaluate attacked {self.name}"
        given = _given(team, self.model, last.weights, team.after, self.after_key, title)
        if len(self.probes) < len(self.steps):
            key = jax.random.fold_in(self.probe_key, last.step)
            self.probes.append(_probed(team, self.model, last.weights, self.tokenizer, key, given))
        judges = {each: np.stack([scores[each] for scores in self.probes]) for each in team.evaluation.judges}
        after = judged(team.evaluation, self.tokenizer, team.after, given)
        spent = paid(team.attack, team.material, self.model, self.params, self.attack_key, self.steps)
        return Episode(self.before, after, Course(last.losses.astype(np.float64), np.array(self.steps), judges, *spent))


def _fallen(team: RedTeam, probe: dict[str, np.ndarray]) -> bool:
    until = team.probes.until
    return until is not None and shown_fallen(probe["refusal"], until)


def _check(point: Point, name: str) -> None:
    finite = np.isfinite(point.losses)
    if not finite.all():
        raise DivergedError(
            f"the attack on {name} diverged: its loss is {point.losses[~finite][0]} at step {np.argmin(finite) + 1}, and says "
            "nothing of resistance; lower its learning rate or step size."
        )


def _probed(
    team: RedTeam, model: Model, weights: Params, tokenizer: Any, key: jax.Array, known: Given | None
) -> dict[str, np.ndarray]:
    """What the judges say of the probes' answers, by name.

    Args:
      known: what the same weights answered in the same wording, of which greedy answers to the probes are a part.
    """
    probing, probed = team.probing, team.probed
    given, most = known, probing.decoding.max_new_tokens
    if given is None or given.ids is None or probing.decoding.temperature > 0 or most > given.ids.shape[1]:
        given = given_by(probing, model, weights, probed, key)
    ids = None if given.ids is None else given.ids[: len(probed.dialogs), :most]
    return judged(probing, tokenizer, probed, Given(ids, None, None)).judged


def _same(one: Material, other: Material) -> bool:
    return all(np.array_equal(*parts) for parts in zip(one.prompts, other.prompts, strict=True))


def _given(team: RedTeam, model: Model, params: Params, material: Material, key: jax.Array, title: str) -> Given:
    with console.progress(title, batch_count(team.evaluation, model, material), "batch") as bar:
        return given_by(team.evaluation, model, params, material, key, bar.advance)
