"""Experiments: whole sweeps by name. ``+experiment=NAME scale=SCALE`` is the file ``experiment/NAME/COMMAND/SCALE.yaml``.

A figure of a paper may take several commands, ``immunax.train`` for the models and ``immunax.certify`` for the attacks on them;
each finds its own sweep by the one name. What such a file varies stands in its ``hydra.sweeper.params`` and is taken as if it had
been written on the line, so that a line that gives one of these itself narrows the sweep or moves it elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from immunax.runtime.errors import UserError, nearest

GROUP, SCALE = "experiment", "scale"
USUAL = "organism"
"""The scale of an experiment that is asked for by its name alone."""

COMMANDS = ("train", "attack", "certify")
"""That an experiment may have a sweep of, in the order in which one needs what the other has made."""

PARAMS = "hydra.sweeper.params"


class Chosen(NamedTuple):
    """An experiment's sweep of one command.

    Attributes:
      name: of the experiment.
      command: whose sweep it is.
      scale: how large it is.
    """

    name: str
    command: str
    scale: str

    @property
    def run(self) -> str:
        """What its folder of runs is called."""
        return f"{self.name}-{self.scale}-{self.command}"


def resolved(overrides: Sequence[str], groups: Mapping[str, Sequence[str]], command: str) -> list[str]:
    """Overrides with the file that an experiment's name stands for.

    Args:
      overrides: as written.
      groups: choices by group.
      command: that they are given to, such as ``train``.

    Raises:
      UserError: there is no such experiment, or it has no sweep of this command or of this scale.
    """
    given = {key: value for key, value in map(_split, overrides) if key in (GROUP, SCALE)}
    name, scale = given.get(GROUP), given.get(SCALE, USUAL)
    if name is None:
        if SCALE in given:
            raise UserError(f"{SCALE}={scale}: is that of an experiment; add +{GROUP}=NAME. {_all(groups)}")
        return list(overrides)
    if SCALE not in given and name in groups.get(GROUP, ()):
        return list(overrides)  # a file of its own, which composes one run
    commands = _commands(groups).get(name)
    if commands is None:
        raise UserError(f"unknown {GROUP} {name!r}.{nearest(name, _commands(groups))} {_all(groups)}")
    if command not in commands:
        others = " and ".join(f"immunax.{each}" for each in commands)
        raise UserError(f"{GROUP}={name}: has no sweep of immunax.{command}; it is one of {others}.")
    group = f"{GROUP}/{name}/{command}"
    if scale not in groups[group]:
        raise UserError(f"{SCALE}={scale}: {group} has {', '.join(groups[group])}.{nearest(scale, groups[group])}")
    others = [text for text in overrides if _split(text)[0] not in (GROUP, SCALE)]
    return [f"+{group}={scale}", *others]


def chosen(choices: Mapping[str, Any]) -> Chosen | None:
    """The experiment among what a configuration has chosen of its groups."""
    for group, scale in choices.items():
        parts = str(group).split("/")
        if parts[0] == GROUP and len(parts) == 3:
            return Chosen(parts[1], parts[2], str(scale))
    return None


def written_out(params: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """What a configuration varies by itself, as overrides; without those that the line gives.

    Args:
      params: of the sweeper, such as ``{seed: "0,1,2"}``.
      overrides: of the line.
    """
    given = {_split(text)[0] for text in overrides}
    own = [f"{key}={value}" for key, value in params.items() if str(key).lstrip("+~") not in given]
    # Else the sweeper would add them once more.
    return [*own, f"{PARAMS}=null"] if params else []


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _commands(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By experiment, the commands that it has a sweep of."""
    found: dict[str, list[str]] = {}
    for group in groups:
        parts = group.split("/")
        if parts[0] == GROUP and len(parts) == 3:
            found.setdefault(parts[1], []).append(parts[2])
    return found


def _all(groups: Mapping[str, Sequence[str]]) -> str:
    return f"There is: {', '.join(_commands(groups))}"
