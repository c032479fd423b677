"""What a person writes on the command line, checked and rewritten before Hydra runs it.

Hydra alone answers a misspelt name with several lines or a traceback, wants ``+`` before a group that has no default,
and takes a value of any type. Here each mistake becomes one line that names the thing and what exists.
"""

import os
import string
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from immunax.runtime import experiments, fields
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.misfits import misfit, unknown
from immunax.runtime.nodes import importable
from immunax.runtime.precedence import of_the_model

_OWN_NAMES = "template_args"
"""The field of a model whose names no file knows: they are those of its chat template."""

_HYDRAS = ("hydra/launcher", "hydra/sweeper")
"""Groups of Hydra's that a user chooses from."""


@dataclass(frozen=True)
class ConfigSource:
    """Where the configuration is.

    Attributes:
      folder: of the YAML files; absolute.
      name: of the primary one.
      extra: a further folder to search, as of ``--config-dir``.
      fallbacks: ``{group: (choice, field)}``: a path or hub name given for ``group`` becomes ``group=choice`` with
        ``group.field`` set to it.
    """

    folder: Path
    name: str
    extra: Path | None = None
    fallbacks: Mapping[str, tuple[str, str]] | None = None


@dataclass(frozen=True)
class PreparedOverrides:
    """A command line that is right.

    Attributes:
      overrides: as Hydra takes them.
      config: composed from them, Hydra's own included; of a sweep, one job's.
      sweeps: the overrides with several values.
      first: the overrides of a sweep's first job.
      varied: what an experiment varies, by key; also where the line gives one value of it.
      written: as they were given, with what an experiment's name stands for in its place.
    """

    overrides: list[str]
    config: DictConfig
    sweeps: tuple[str, ...]
    first: list[str]
    varied: frozenset[str]
    written: list[str]


def prepare(source: ConfigSource, overrides: Sequence[str], required: Sequence[str] | None) -> PreparedOverrides:
    """Checks the overrides of a command line, of a sweep too.

    Args:
      source: where the configuration is.
      overrides: as written, with or without ``+`` before a group.
      required: groups of which one choice must be named, ``a|b`` being one of several; None for a configuration that is
        only shown, and may have gaps.

    Returns:
      The overrides as Hydra takes them, and what they compose.

    Raises:
      UserError: a group, choice or field does not exist, a value has another type, or a required group is missing.
    """
    with _hydra(source):
        groups = _all_groups()
        overrides = experiments.resolved(overrides, groups, source.name)
        params = _params(source, overrides)
        written = overrides = [*overrides, *experiments.written_out(params, overrides)]
        overrides = [part for text in overrides for part in _fall_back(text, source, groups)]
        parsed = [_parse(_opened(text)) for text in overrides]
        chosen = {
            id(one) for one in parsed if one.key_or_group in groups and one.package is None and not one.is_delete()
        }
        known = {**groups, **{group: sorted(_loader().get_group_options(group)) for group in _HYDRAS}}
        for one in parsed:
            if one.key_or_group in known and not one.is_delete():
                _check_choices(one, known)
        signed = _sign([one for one in parsed if id(one) in chosen], source, required or ())
        final = [signed.get(id(one), one.input_line or "") for one in parsed]
        brought = _of_the_model(source, final)
        jobs = _jobs(final)
        configs = [_check_job(source, [*job, *brought], required) for job in jobs]
        sweeps = tuple(text for text, one in zip(final, parsed, strict=True) if one.is_sweep_override())
        nodes = {(one.package or one.key_or_group) for one in parsed if id(one) in signed and one.is_sweep_override()}
        final = [_of_any_choice(text, nodes) for text in final]
        varied = frozenset(key.lstrip("+~") for key in params)
        return PreparedOverrides([*final, *brought], configs[0], sweeps, [*jobs[0], *brought], varied, written)


def help_text(source: ConfigSource) -> str:
    """What a command says when it is asked for help: Hydra's template, with the experiments that it has sweeps of as one line.

    Args:
      source: where the configuration is.
    """
    with _hydra(source):
        groups = _all_groups()
        template = str(_compose(source, []).hydra.help.template)
    told = {group: choices for group, choices in groups.items() if group.partition("/")[0] != experiments.GROUP}
    parts = [group.split("/") for group in groups if group not in told]
    named = sorted(part[1] for part in parts if part[2:] == [source.name])
    told |= {experiments.GROUP: named} if named else {}
    lines = [f"{group}: {', '.join(told[group])}\n" for group in sorted(told)]
    return string.Template(template).safe_substitute(APP_CONFIG_GROUPS="".join(lines))


@contextmanager
def _hydra(source: ConfigSource) -> Iterator[None]:
    # What hydra.main builds; hydra.initialize_config_dir would know nothing of a further folder's groups.
    version.setbase("1.3")
    path = create_config_search_path(str(source.folder))
    if source.extra is not None:
        if not source.extra.is_dir():
            raise UserError(f"--config-dir {source.extra}: there is no such folder")
        path.prepend("command-line", f"file://{source.extra}", SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    Hydra.create_main_hydra2("immunax", path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def _all_groups() -> Mapping[str, list[str]]:
    """Choices by group, at any depth: ``hydra`` and its own groups apart."""
    return _groups_of(_loader())


@lru_cache(maxsize=1)
def _groups_of(loader: Any) -> Mapping[str, list[str]]:
    # Each question of Hydra's is a deep copy, and a command line asks for all groups in ten places.
    found: dict[str, list[str]] = {}

    def visit(parent: str) -> None:
        for name in loader.list_groups(parent):
            group = f"{parent}/{name}".lstrip("/")
            if group == "hydra":
                continue
            found[group] = sorted(loader.get_group_options(group))
            visit(group)

    visit("")
    return MappingProxyType(found)


def _params(source: ConfigSource, overrides: Sequence[str]) -> Mapping[str, Any]:
    """What the experiment among some overrides varies by itself, in a sweep of this command: its file may be given to another,
    as to ``immunax.compile``, which takes one run of it."""
    if not any(
        text.startswith(f"+{experiments.GROUP}/") and text.partition("=")[0].endswith(f"/{source.name}")
        for text in overrides
    ):
        return {}
    own = [text for text in overrides if text.lstrip("+").startswith((f"{experiments.GROUP}/", *_HYDRAS))]
    params = OmegaConf.select(_compose(source, own), experiments.PARAMS)
    return {} if params is None else cast(dict[str, Any], OmegaConf.to_container(params, resolve=False))


def _fall_back(text: str, source: ConfigSource, groups: Mapping[str, list[str]]) -> list[str]:
    key, equals, value = text.partition("=")
    group = key.lstrip("+")
    if not equals or group not in (source.fallbacks or {}):
        return [text]
    several = value.split(",")
    if Path(value).exists() or not all(_is_path(part, groups[group]) for part in several):
        several = [value]
    if not _is_path(several[0], groups[group]):
        return [text]
    choice, field = (source.fallbacks or {})[group]
    # Quoted: a path may hold a space, a comma or an equals sign.
    places = (QuotedString(text=_place(part), quote=Quote.single) for part in several)
    quoted = ",".join(place.with_quotes() for place in places)
    return [f"{key}={choice}", f"{group}.{field}={quoted}"]


def _opened(text: str) -> str:
    """An override of a mapping whose names are the user's own as one that may add a name."""
    parents = text.partition("=")[0].split(".")[:-1]
    return f"++{text}" if parents[-1:] == [_OWN_NAMES] and text[0] not in "+~" else text


def _of_any_choice(text: str, nodes: Set[str]) -> str:
    """A field of a group of which several choices are swept over, as Hydra takes it for the sweep, which has made no choice."""
    return f"++{text}" if text.partition("=")[0].partition(".")[0] in nodes and "." in text.partition("=")[0] else text


def _place(text: str) -> str:
    """A path that exists as an absolute one, so that what a run records is found from any folder."""
    path = os.path.expanduser(text.strip("'\""))
    return os.path.abspath(path) if os.path.exists(path) else path


def _is_path(text: str, choices: Sequence[str]) -> bool:
    return text not in choices and ("/" in text or text.startswith(("~", ".")) or Path(text).exists())


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_overrides([text])[0]
    except HydraException as error:
        key = text.partition("=")[0]
        hint = f"; quote the value: \"{key}='...'\"" if "=" in text else "; expected NAME=VALUE"
        raise UserError(f"cannot read {text!r}: {_line(error)}{hint}") from error


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _compose(source: ConfigSource, overrides: Sequence[str]) -> DictConfig:
    try:
        return compose(source.name, list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise refused(error) from error


def refused(error: Exception) -> UserError:
    """What Hydra says of a configuration that cannot be composed, in one line."""
    lines = [line.strip() for part in (error, error.__cause__) if part for line in str(part).splitlines()]
    fix = ["mend that file"] if isinstance(error, YAMLError) else []
    return UserError("configuration: " + "; ".join(line for line in [*lines[:3], *fix] if line))


def _choices(config: DictConfig) -> dict[str, str]:
    return dict(config.hydra.runtime.choices)


def _sign(chosen: Sequence[Override], source: ConfigSource, required: Sequence[str]) -> dict[int, str]:
    """``group=choice`` or ``+group=choice``, by whether the defaults, or an experiment, choose one already.

    Required groups come last, because an experiment may name one.
    """
    signed: dict[int, str] = {}
    before: list[str] = []
    for one in sorted(chosen, key=lambda one: one.key_or_group in required):
        text = (one.input_line or "").lstrip("+")
        known = one.key_or_group in _choices(_compose(source, before))
        signed[id(one)] = text if known else f"+{text}"
        before.append(_jobs([signed[id(one)]])[0][0])
    return signed


def _of_the_model(source: ConfigSource, overrides: Sequence[str]) -> list[str]:
    """See :func:`of_the_model`; the jobs of a sweep share one command line."""
    first, *others = [
        of_the_model(lambda given: _choices(_compose(source, given)), _choosing(job)) for job in _jobs(overrides)
    ]
    if any(other != first for other in others):
        raise UserError("these models bring data of their own to a recipe: sweep over one of them at a time.")
    return first


def _choosing(overrides: Sequence[str]) -> list[str]:
    """The overrides that choose a group."""
    groups = _all_groups()
    return [text for text in overrides if text.partition("=")[0].lstrip("+~").partition("@")[0] in groups]


def _check_choices(one: Override, groups: Mapping[str, list[str]]) -> None:
    group, choices = one.key_or_group, groups[one.key_or_group]
    for value in _values(one, groups):
        if value not in choices:
            raise UserError(f"unknown {group} {value!r}.{nearest(value, choices)} Choices: {', '.join(choices)}")


def _values(one: Override, groups: Mapping[str, list[str]]) -> list[str]:
    """What an override stands for: its value, or each value of a sweep (the start, of a continuous one)."""
    if not one.is_sweep_override():
        return [one.get_value_string() if one.key_or_group in groups else one.get_value_element_as_str()]
    value = one.value()
    if isinstance(value, Glob):
        return value.filter(groups.get(one.key_or_group, []))
    if one.is_discrete_sweep():
        return [str(item) for item in one.sweep_string_iterator()]
    return [str(getattr(value, "start", 0))]


def _jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Command lines that between them use every value of a sweep once: as many as its longest axis, not the product."""
    groups = _all_groups()
    parsed = [_parse(text) for text in overrides]
    columns = [
        [f"{one.get_key_element()}={value}" for value in _values(one, groups)]
        if one.is_sweep_override()
        else [one.input_line or ""]
        for one in parsed
    ]
    rows = zip_longest(*columns)
    return [[text or column[0] for text, column in zip(row, columns, strict=True)] for row in rows] or [[]]


def _check_job(source: ConfigSource, overrides: Sequence[str], required: Sequence[str] | None) -> DictConfig:
    groups = _all_groups()
    parsed = [_parse(text) for text in overrides]
    chosen = [one for one in parsed if one.key_or_group in groups or one.package is not None or one.is_delete()]
    base = _compose(source, [one.input_line or "" for one in chosen])
    for group in required or ():
        if all(_choices(base).get(name) in (None, "null") for name in group.split("|")):
            first, *others = group.split("|")
            whole = "recipe" in _choices(base)
            hint = f" recipe=NAME chooses one too: {', '.join(groups['recipe'])}" if whole else ""
            hint = f". Or {' or '.join(f'{name}=NAME' for name in others)}.{hint}" if others else hint
            raise UserError(f"name one {first}: {first}=NAME. Choices: {', '.join(groups.get(first, []))}{hint}")
    for one in parsed:
        if one not in chosen and not one.is_hydra_override():
            _check_value(one, base, groups)
    config = _compose(source, overrides)
    if required is not None:
        own = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
        fields.check(OmegaConf.to_container(own), importable, composed=True)
    return config


def _check_value(one: Override, config: DictConfig, groups: Mapping[str, list[str]]) -> None:
    *parents, last = one.key_or_group.split(".")
    node: Any = config
    for depth, name in enumerate([*parents, last]):
        present = [str(key) for key in node if key != "hydra"] if isinstance(node, DictConfig) else []
        if isinstance(node, ListConfig):
            return
        if name not in present:
            # Nobody reads a field beside those of the primary configuration.
            if depth and (one.is_add() or one.is_force_add()):
                return
            raise unknown(one.key_or_group.split(".")[: depth + 1], present, config, groups)
        before = None if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name) else node[name]
        node = before
    given = OmegaConf.create({"value": one.value()})
    if isinstance(one.value(), str) and OmegaConf.is_interpolation(given, "value"):
        return
    # Below the top a dataclass says what may be null.
    expected = fields.same_kind(node, given["value"], nullable=bool(parents))
    if expected:
        raise misfit(one.key_or_group, given["value"], node, expected, config, groups)
