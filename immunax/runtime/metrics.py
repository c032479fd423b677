"""Numbers over time: a JSON-lines file, TensorBoard events, and the trackers the user asks for.

``metrics.jsonl`` holds one object a line, ``{"phase": ..., "step": ..., "values": {...}}``; a number that JSON has no
word for (NaN, infinity) is null there. To a bucket, where nothing can be appended, the files are sent whole from time to time.
"""

import importlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from immunax.runtime import atomic, digest, mirror
from immunax.runtime.errors import UnreachableError, UserError, close_behind
from immunax.runtime.leader import is_leader

if TYPE_CHECKING:
    from immunax.runtime.tensorboard import Events

FILE = "metrics.jsonl"
_SEND_SECONDS = 30.0
"""How often a bucket is sent what was logged."""
_WANDB_ID = 32  # characters of a run's id: as good as unique, and half of what the service allows


class Tracker(Protocol):
    """A service that keeps metrics."""

    def start(self, run_dir: Path) -> None:
        """Opens the run, or the same run again when it is resumed."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps the values of one step, by full name."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


class Metrics:
    """The metrics of one run; on processes other than 0 it does nothing.

    Args:
      run_dir: the run's folder.
      trackers: services to send the same numbers to.

    Raises:
      UserError: by this and by every method, the disk is full or may not be written to.
    """

    def __init__(self, run_dir: Path | str, trackers: Sequence[Tracker] = ()) -> None:
        self._folder = Path(run_dir)
        self._trackers = tuple(trackers) if is_leader() else ()
        self._board: Events | None = None
        self._sent = time.monotonic()
        with self._told():
            if is_leader():
                # Its protocol takes a while to import, which whoever reads metrics does without.
                from immunax.runtime import tensorboard

                self._folder.mkdir(parents=True, exist_ok=True)
                self._board = tensorboard.Events(self._folder / "tensorboard")
            for tracker in self._trackers:
                tracker.start(self._folder)

    def resume(self, phase: str, step: int) -> int:
        """Drops what a phase logged after a step, so that doing those steps again leaves no duplicates.

        Args:
          phase: the phase that resumes.
          step: the last step that the restored state has done.

        Returns:
          How many records it dropped.
        """
        path = self._folder / FILE
        if not is_leader() or not path.exists():
            return 0
        found = read(path)
        kept = [record for record in found if record["phase"] != phase or record["step"] <= step]
        with atomic.file(path) as temp:
            temp.write_text("".join(json.dumps(record) + "\n" for record in kept))
        return len(found) - len(kept)

    def log(self, step: int, phase: str, values: Mapping[str, Any]) -> None:
        """Keeps the numbers of one step.

        Args:
          step: the phase's own step.
          phase: what the numbers belong to, such as ``train`` or ``attack/lora``.
          values: scalars by name: Python numbers, or NumPy or JAX arrays of one element.
        """
        if self._board is None:
            return
        numbers = {name: float(value) for name, value in values.items()}
        shown = {name: json_number(number) for name, number in numbers.items()}
        line = json.dumps({"phase": phase, "step": int(step), "values": shown}, allow_nan=False)
        full = {f"{phase}/{name}": number for name, number in numbers.items()}
        with self._told():
            # Opened for each line: a crash then loses none, and a resumed file may have been replaced.
            with (self._folder / FILE).open("a") as out:
                out.write(line + "\n")
            for name, number in full.items():
                self._board.add(int(step), name, number)
            for tracker in self._trackers:
                tracker.log(int(step), full)
        if time.monotonic() - self._sent >= _SEND_SECONDS:
            with suppress(UnreachableError):  # the next time
                self.send()

    def send(self) -> None:
        """Sends a bucket what was logged. Before a checkpoint, as a restart from it does not log those steps again.

        Raises:
          UserError: the bucket refuses.
        """
        if self._board is None or not mirror.is_mirrored(self._folder):
            return
        with self._told():
            self._board.flush()
        mirror.settle(self._folder)
        self._sent = time.monotonic()

    def close(self) -> None:
        """Sends and writes what is left."""
        with self._told(), ExitStack() as stack:  # which closes the others too where one fails
            for tracker in self._trackers:
                stack.callback(tracker.close)
            if self._board is not None:
                stack.callback(mirror.settle, self._folder)
                stack.callback(self._board.close)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        close_behind(kind, self.close)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise atomic.disk_error(self._folder, error) or error from error


def json_number(value: float) -> float | None:
    """A number as JSON has it: None where it is NaN or infinite, for which JSON has no word."""
    return float(value) if math.isfinite(value) else None


def read(path: Path | str) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``.

    Args:
      path: the file.

    Returns:
      ``{"phase", "step", "values"}`` each, in the order written. A last line that a crash cut short is left out.
    """
    lines = Path(path).read_text(errors="replace").splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        found = record(line)
        if found is not None:
            records.append(found)
        elif number < len(lines):
            raise UserError(f"{path}, line {number} is no record: the file was edited or damaged; mend or delete it")
    return records


def record(line: str) -> dict[str, Any] | None:
    """What one line holds, ``{"phase", "step", "values"}``; None where it is no such record."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and found.keys() >= {"phase", "step", "values"} and isinstance(found["step"], int)
    return found if whole else None


def _import(package: str) -> Any:
    # Imported when a run uses it: the trackers are an extra.
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"tracker {package} is not installed; run: pip install 'immunax[trackers]'") from error


@dataclass(frozen=True)
class Wandb:
    """Weights & Biases.

    Attributes:
      project: its project.
      mode: ``online``, ``offline`` or ``disabled``.
    """

    project: str = "immunax"
    mode: str = "online"

    def start(self, run_dir: Path) -> None:
        """Opens the run named after the run folder and the one above; a resumed run goes on in the same one."""
        wandb = _import("wandb")
        # A job of a sweep has a number for a name, as one of every other sweep has: only the whole path is its own.
        place = run_dir.resolve()
        wandb.init(
            project=self.project,
            mode=self.mode,
            dir=str(run_dir),
            name=f"{place.parent.name}/{place.name}",
            id=digest.of_json(place)[:_WANDB_ID],
            resume="allow",
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Each phase counts its own steps, so the step is a value beside the others."""
        phases = {name.rpartition("/")[0] for name in values}
        _import("wandb").log({**values, **{f"{phase}/step": step for phase in phases}})

    def close(self) -> None:
        """Sends what is left."""
        _import("wandb").finish()


@dataclass(frozen=True)
class Mlflow:
    """MLflow.

    Attributes:
      experiment: its experiment.
      uri: the tracking server, or a folder; MLflow's own default when None.
    """

    experiment: str = "immunax"
    uri: str | None = None

    def start(self, run_dir: Path) -> None:
        """Opens a run named after the run folder."""
        mlflow = _import("mlflow")
        if self.uri is not None:
            mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment(self.experiment)
        mlflow.start_run(run_name=run_dir.name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps the values of one step."""
        _import("mlflow").log_metrics(dict(values), step=step)

    def close(self) -> None:
        """Ends the run."""
        _import("mlflow").end_run()
