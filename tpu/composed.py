"""What a command line of immunax comes to: the jobs of its sweep by name, and what is to be compiled of each.

Started by the launcher in the package's own environment, as ``python -m tpu.composed``: a line of JSON on standard input
(``module``, ``overrides``), one on standard output. A mistake is told in one line, with exit status 2, as by the command itself.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from immunax.runtime import experiments
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.errors import UserError
from immunax.runtime.escaped import say
from immunax.runtime.overrides import ConfigSource, prepare
from immunax.runtime.sweeps.names import called

_MODEL = {"model": ("hf", "path")}
_REQUIRED = {"immunax.train": ("defense",), "immunax.attack": ("attack",)}
# What immunax.compile has a mesh, a trainer or a suite of its own for: what the command itself would choose is given to it.
_ITS_OWN = {
    "immunax.train": ("mesh", "trainer"),
    "immunax.attack": ("mesh", "trainer"),
    "immunax.certify": ("mesh", "trainer", "suite"),
}
# What immunax.compile has no such fields of, or what says where to write.
_NOT_COMPILED = (
    *("outputs", "run", "export_dtype", "export_adapter", "objective", "tracker", "hydra", "distributed"),
    *("start", "red_team", "attack@red_team", "probes", "policy", "reference", "trained_against", "key", "bundle_key"),
)
_PART = "mesh.part"
"""A run's program is that of its part, whatever else is on the slice."""
_REMAT = "compute.remat"
_FREE = "seed"
"""Changes numbers, and never a program."""


def composed(module: str, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """The jobs of a command line.

    Args:
      module: such as ``immunax.train``.
      overrides: its arguments, several values among them.

    Returns:
      For each job ``sweep`` (what its sweep is called by the line or by an experiment; None where neither says), ``folder`` (its
      name within the sweep; None of a command that is no sweep), ``overrides``, and of a training, an attack or a certificate
      ``compile``, the arguments of ``immunax.compile`` for its programs; else None.

    Raises:
      UserError: something of it is wrong.
    """
    source = ConfigSource(configuration_folder(), module.rpartition(".")[2])
    required = _REQUIRED.get(module, ())
    prepared = prepare(replace(source, fallbacks=_MODEL), overrides, required)
    overrides, sweep = prepared.written, _called(prepared.config)
    # What an experiment varies names its runs also where the line gives one value of it.
    swept = {_key(text) for text in prepared.sweeps} | prepared.varied
    parsed = OverridesParser.create().parse_overrides(overrides)
    found, known = [], {}
    for chosen in BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]:
        # What is not swept stays as the user wrote it.
        job = [one if _key(one) in swept else text for one, text in zip(chosen, overrides, strict=True)]
        folder = called([text for text in job if _key(text) in swept]) if swept else None
        program = tuple(text for text in job if _key(text) != _FREE)
        if module in _ITS_OWN and program not in known:
            known[program] = _program(source, program, required, _ITS_OWN[module])
        found.append({"sweep": sweep, "folder": folder, "overrides": job, "compile": known.get(program)})
    names = [record["folder"] for record in found]
    twice = next((name for name in names if name is not None and names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: two jobs of the sweep are the same; leave one out.")
    return found


def _called(config: Any) -> str | None:
    experiment = experiments.chosen(config.hydra.runtime.choices)
    named = config.get("run")
    return str(named) if named is not None else experiment and experiment.run


def _program(
    source: ConfigSource, overrides: Sequence[str], required: tuple[str, ...], own: tuple[str, ...]
) -> list[str]:
    given = {_key(text) for text in overrides}
    choosing = tuple(text for text in overrides if "." not in _key(text) or _key(text) == _REMAT)
    choices, remat = _chosen(source, choosing, required, own)
    kept = [
        text
        for text in overrides
        if _key(text).partition(".")[0].partition("/")[0] not in _NOT_COMPILED and _key(text) != _PART
    ]
    # What is asked is whether this very command fits.
    kept += [f"{group}={choices[group]}" for group in own if group not in given and choices[group] is not None]
    return kept if _REMAT in given else [*kept, f"{_REMAT}={remat}"]


@cache
def _chosen(
    source: ConfigSource, overrides: tuple[str, ...], required: tuple[str, ...], own: tuple[str, ...]
) -> tuple[dict[str, str | None], str]:
    """What those overrides choose that no field can change: the same for most jobs of a sweep, and a second's work."""
    config = prepare(replace(source, fallbacks=_MODEL), overrides, required).config
    choices = config.hydra.runtime.choices
    return {group: choices[group] for group in own}, str(config.compute.remat)


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")


if __name__ == "__main__":
    try:
        print(json.dumps(composed(**json.load(sys.stdin))))
    except UserError as mistake:
        say(f"error: {mistake}", error=True)
        raise SystemExit(2) from None
