"""The command that is to run, as the user wrote it behind ``--``, and the slice that it is for."""

from collections.abc import Sequence
from dataclasses import dataclass

from immunax.runtime.errors import UserError, nearest, shown
from immunax.runtime.parts import Part
from tpu import slices
from tpu.slices import ROOT, Shape

_PACKAGE = "immunax."
_BEFORE = (("uv", "run"), ("python", "-m"), ("python3", "-m"))
_MULTIRUN = ("-m", "--multirun")


@dataclass(frozen=True)
class Job:
    """One command, of one run or of a sweep.

    Attributes:
      module: such as ``immunax.train``.
      overrides: its arguments, without ``-m``.
      multirun: whether it is a sweep.
    """

    module: str
    overrides: tuple[str, ...]
    multirun: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """What stands behind ``python -m``."""
        return (self.module, *(["-m"] if self.multirun else []), *self.overrides)

    @property
    def argv(self) -> tuple[str, ...]:
        """What a host runs."""
        return ("python", "-m", *self.arguments)

    def value(self, key: str) -> str | None:
        """What an override sets, the last one of its name, without quotes around it; None where none does."""
        found = [text.partition("=") for text in self.overrides]
        return next((value.strip("\"'") for name, _, value in reversed(found) if name.lstrip("+") == key), None)


def read(words: Sequence[str]) -> Job:
    """The command behind ``--``.

    Args:
      words: ``immunax.train +defense=tar ...``, with or without ``python -m`` or ``uv run python -m`` before it.

    Raises:
      UserError: it is no command of immunax, or has a character that no line can carry.
    """
    rest = list(words)
    for before in _BEFORE:
        if tuple(rest[:2]) == before:
            rest = rest[2:]
    if not rest:
        raise UserError(
            "no command: write it behind --, as: -- immunax.train mesh=v5e_16 +defense=tar outputs=gs://..."
        )
    bad = next((word for word in rest if not word.isprintable()), None)
    if bad is not None:
        raise UserError(f"{shown(bad)}: an argument has to be one line of characters that can be seen.")
    module, *arguments = rest
    known = [f"{_PACKAGE}{path.stem}" for path in sorted((ROOT / "immunax").glob("*.py")) if path.stem != "__init__"]
    if module not in known:
        raise UserError(
            f"{shown(module)}: expected a command of immunax, one of {', '.join(known)}.{nearest(module, known)}"
        )
    options = [word for word in arguments if word.startswith("-") and word not in _MULTIRUN]
    if options:
        raise UserError(f"{options[0]}: options of the launcher stand before --, and a command takes overrides here.")
    overrides = tuple(word for word in arguments if word not in _MULTIRUN)
    return Job(module, overrides, len(overrides) < len(arguments))


def shape_of(job: Job, type_: str | None) -> Shape:
    """The slice that a command is for.

    Args:
      job: names it by ``mesh=NAME`` or ``mesh.topology=...``.
      type_: an accelerator type, where the mesh is for any slice.

    Raises:
      UserError: neither says it, or they contradict one another.
    """
    meant, parts = named_shape(job), parts_of(job)
    if meant is not None and parts > 1:
        meant = slices.of_parts(meant, parts)
    asked = None if type_ is None else slices.of_type(type_)
    if meant is None and asked is None:
        raise UserError(
            "which slice? Give mesh=v5e_16 to the command, or --type v5litepod-16 with mesh=fsdp or another."
        )
    if meant is not None and asked is not None and meant.type != asked.type:
        of_parts = f", of which it takes {parts} parts" if parts > 1 else ""
        raise UserError(
            f"--type {type_}: the command's mesh is for {meant.type} ({meant.mesh}{of_parts}); give one of both."
        )
    found = meant or asked
    assert found is not None
    return found


def parts_of(job: Job) -> int:
    """In how many parts a command shares a slice out, each with a run of its own.

    Args:
      job: the command.

    Raises:
      UserError: ``mesh.part`` says none.
    """
    said = job.value("mesh.part")
    return 1 if said in (None, "null") else Part.read(said).count


def named_shape(job: Job) -> Shape | None:
    """The slice, or the part of one, that a command's own mesh is for; None where that is for any.

    Args:
      job: the command.

    Raises:
      UserError: there is no such mesh or slice.
    """
    topology, mesh = job.value("mesh.topology"), job.value("mesh")
    if topology is not None:
        return slices.of_topology(topology)
    return None if mesh is None else slices.of_mesh(mesh)


def check_outputs(job: Job) -> None:
    """Refuses a run whose results would lie on the slice's own disk, which goes with it.

    Args:
      job: the command.

    Raises:
      UserError: ``outputs`` is no bucket.
    """
    outputs = job.value("outputs")
    if outputs is None or "://" not in outputs:
        where = "outputs/" if outputs is None else outputs
        raise UserError(
            f"outputs={where} lies on the slice's own disk, which goes with it: give the command outputs=gs://BUCKET/runs."
        )


def cache(job: Job) -> dict[str, str]:
    """The environment variable of a cache that all machines of a job see, beside its ``outputs`` on a bucket; none elsewhere.

    Args:
      job: the command.
    """
    outputs = (job.value("outputs") or "").rstrip("/")
    scheme, is_address, path = outputs.partition("://")
    if not is_address or "${" in outputs:
        return {}
    return {"IMMUNAX_CACHE": f"{scheme}://{path.rpartition('/')[0] or path}/cache"}
