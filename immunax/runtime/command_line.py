"""What a user wrote, as Hydra takes it: checked, named, and with a folder for every run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hydra._internal.utils import get_args_parser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from immunax.runtime import bucket, experiments, mirror, names
from immunax.runtime.errors import UserError
from immunax.runtime.overrides import ConfigSource, PreparedOverrides, help_text, prepare
from immunax.runtime.sweeps import engines
from immunax.runtime.sweeps import names as job_names


class CommandLine(NamedTuple):
    """A command line for Hydra.

    Attributes:
      arguments: options first, then overrides.
      outputs: the folder of runs; None where nothing is to run.
      config: what was composed; None where nothing is to run.
      told: what is printed in the place of all that; None but for help.
    """

    arguments: list[str]
    outputs: Path | None = None
    config: DictConfig | None = None
    told: str | None = None


def read(argv: Sequence[str], source: ConfigSource, required: Sequence[str]) -> CommandLine:
    """The command line for Hydra: overrides checked, the run's folder set.

    Args:
      argv: as the user wrote it.
      source: where the configuration is.
      required: groups that the user must choose from; ``a|b`` is one of several.

    Raises:
      UserError: something of it is wrong.
    """
    args = get_args_parser().parse_intermixed_args(list(argv))
    options = [text for text in argv if text not in args.overrides]
    if args.hydra_help or args.shell_completion or args.info is not None or args.experimental_rerun:
        return CommandLine([*options, *args.overrides])
    if args.config_path is not None:
        raise UserError(f"--config-path {args.config_path}: use --config-dir to add a folder of configuration files")
    source = replace(
        source,
        name=args.config_name or source.name,
        extra=Path(args.config_dir).absolute() if args.config_dir else None,
    )
    if args.help:
        return CommandLine([], told=help_text(source))
    prepared = prepare(source, args.overrides, None if args.cfg else required)
    if args.cfg:
        # Of a sweep the first run, which Hydra itself refuses to show.
        shown = [text for text in options if text not in ("-m", "--multirun")]
        return CommandLine([*shown, *prepared.first])
    sweep = args.multirun or prepared.config.hydra.mode == RunMode.MULTIRUN
    if prepared.sweeps and not sweep:
        raise UserError(
            f"{prepared.sweeps[0].lstrip('+')}: several values need -m, a run for each; quote a value with a comma"
        )
    engines.check(prepared.config, sweep)
    arguments = [*options, *prepared.overrides, *_folders(prepared, source, required)]
    return CommandLine(arguments, mirror.local(str(prepared.config.outputs)), prepared.config)


def _check_name(run: str) -> None:
    """Refuses a run's name that is no place of its own within the outputs folder."""
    parts = Path(run).parts
    if not parts or ".." in parts or Path(run).is_absolute():
        raise UserError(
            f"run={run}: leads out of the folder of runs; give a plain name, and set that folder with outputs=DIR"
        )


def _folders(prepared: PreparedOverrides, source: ConfigSource, required: Sequence[str]) -> list[str]:
    """Overrides that name the run and place its folder, where the user has not done so."""
    config = prepared.config
    named = config.get("run") is not None
    if named:
        _check_name(str(config.run))
    swept = {_key(text) for text in prepared.sweeps}
    fixed = {_key(text) for text in prepared.overrides} - swept
    for key in fixed.intersection(("hydra.run.dir", "hydra.sweep.dir")):
        if bucket.is_address(str(OmegaConf.select(config, key))):
            raise UserError(
                f"{key}: Hydra itself writes to no bucket; set outputs=gs://BUCKET/FOLDER and run=NAME instead"
            )
    added = {
        "hydra.job.chdir": "false",
        "hydra.run.dir": _below_outputs(str(config.outputs)),
        "hydra.sweep.dir": _below_outputs(str(config.outputs)),
        "hydra.sweep.subdir": job_names.job_folder(),
        "hydra.job.config.override_dirname.item_sep": repr(job_names.SEPARATOR),
        # Those that are added here among them: they would be part of a name that they make. What an experiment varies names its
        # runs also where a line gives one value, so that a part of it lies where the whole will.
        "hydra.job.config.override_dirname.exclude_keys": f"[{','.join(map(repr, sorted({*fixed, 'run'} - prepared.varied)))}]",
    }
    name = [] if named else [f"run={_name(prepared, source, required, swept)}"]
    return name + [f"{key}={value}" for key, value in added.items() if key not in fixed]


def _below_outputs(outputs: str) -> str:
    """Where Hydra makes a run's folder; for one in a bucket, the folder here that stands for it."""
    if not bucket.is_address(outputs):
        return "${outputs}/${run}"
    place = str(mirror.local(outputs)).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{place}/${{run}}'"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _name(prepared: PreparedOverrides, source: ConfigSource, required: Sequence[str], swept: set[str]) -> str:
    """What a run is called by itself: its choice of the required groups and of the model, and its seed, but for what is swept."""
    config, choices = prepared.config, prepared.config.hydra.runtime.choices
    experiment = experiments.chosen(choices)
    if experiment is not None:
        return experiment.run
    # Of alternatives, the one that the user has chosen.
    named = (next(name for name in group.split("|") if choices.get(name) not in (None, "null")) for group in required)
    what = ("recipe",) if choices.get("recipe") not in (None, "null") else tuple(named)
    parts = {group: str(choices.get(group)) for group in (*what, "model")} | {"seed": str(config.get("seed"))}
    for group, (_, field) in (source.fallbacks or {}).items():
        given = f"{group}.{field}"
        if group in parts and any(_key(text) == given for text in prepared.overrides):
            # A choice that stands for any path says nothing; its last part does.
            parts[group] = names.in_path(names.of_model(str(config[group][field])))
        if given in swept:
            parts.pop(group, None)
    return "-".join(part for group, part in parts.items() if group not in swept) or "sweep"
