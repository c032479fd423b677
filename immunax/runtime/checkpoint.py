"""Checkpoints of a training state: written in the background, whole or not at all, restored bit for bit.

On disk or in a bucket each is an Orbax step folder holding one flat dictionary (``flat_state``), without compression: float32
weights hardly compress, and the time would be the run's. Beside it stands a checksum of every array, made on the devices before
the save: what is read is compared with it, so that bits that a disk or a memory has changed are never taken for weights.
"""

import errno
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import orbax.checkpoint as ocp
from etils import epath

from immunax.runtime import bucket, console, stand_ins
from immunax.runtime.atomic import disk_error
from immunax.runtime.carried import Carried, is_carried
from immunax.runtime.checksum import as_text, checksums
from immunax.runtime.errors import RefusedError, UnreachableError, UserError, close_behind
from immunax.runtime.flat_state import assemble, described, named, request, stored
from immunax.runtime.save_barrier import SaveBarrier
from immunax.runtime.together import agreed, gathered, processes

_REFUSED = {
    errno.ENOSPC: re.compile(r"no space left|disk quota", re.IGNORECASE),
    errno.EFBIG: re.compile(r"file too large", re.IGNORECASE),
}
_CHECKSUMS, _METRICS = "checksums", "metrics"
_ITEM = "default"
"""Orbax's name of the only thing that one of our checkpoints holds."""


class DamagedError(UserError):
    """A checkpoint that is not what was written."""


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
      directory: where they lie; made when missing. Leftovers of a save that never ended are removed.
      keep_last: how many of the most recent to keep, at least 1.
      keep_best: how many of the best to keep besides, by ``metric``; 0 for none.
      metric: the name in ``save``'s metrics that ranks them; needed when ``keep_best`` is positive.
      best: whether the lowest or the highest value is the best; NaN and a missing value are the worst.
      read_only: nothing in the folder is made or removed, because another process may be saving there.
    """

    def __init__(
        self,
        directory: Path | str,
        keep_last: int = 1,
        keep_best: int = 0,
        metric: str | None = None,
        best: Literal["min", "max"] = "min",
        read_only: bool = False,
    ) -> None:
        if keep_last < 1 or keep_best < 0:
            raise UserError(f"checkpoints: keep_last={keep_last} must be 1 or more, keep_best={keep_best} 0 or more")
        if keep_best and not metric:
            raise UserError(f"checkpoints: keep_best={keep_best} needs metric=NAME to say which are best")
        place = Path(directory).absolute()
        self._address = stand_ins.address(place)
        self._carried = Carried(place) if is_carried(place) else None
        self.directory = epath.Path(place if self._carried else self._address or place)
        self._read_only = read_only
        self._best = _Best(keep_best, metric, best)
        _hush()
        if self._address is not None:
            bucket.prepare(self._address)
        if self._carried is not None:
            self._carried.bring()
        self._handler = ocp.PyTreeCheckpointHandler(use_compression=False)
        with self._told():
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(
                        [ocp.checkpoint_managers.LatestN(keep_last), self._best]
                    ),
                    cleanup_tmp_directories=not read_only,
                    create=not read_only,
                    read_only=read_only,
                    async_options=ocp.AsyncOptions(barrier_sync_fn=SaveBarrier()) if processes() > 1 else None,
                    # Orbax warns of its own default here when it may only read.
                    save_interval_steps=0 if read_only else 1,
                ),
                item_handlers=self._handler,
            )
        for step in self.steps() if keep_best else ():
            self._best.note(step, self._about(step).get(_METRICS))

    def save(self, step: int, state: Any, metrics: Mapping[str, float] | None = None) -> bool:
        """Starts to write one checkpoint; returns once the state may be overwritten, not once it is on disk.

        Args:
          step: its number.
          state: a pytree of arrays, JAX random keys and Python numbers.
          metrics: by name; ``metric`` among them when ``keep_best`` is positive.

        Returns:
          False when this step is already there, for instance saved both on schedule and at the end.

        Raises:
          UserError: the disk refused this or the previous one.
          ValueError: opened to read only.
        """
        if self._read_only:
            raise ValueError(f"the checkpoints in {self.directory} were opened to read only")
        with self._told():
            if step in self._manager.all_steps():
                return False
            self._send()
            flat = {name: stored(leaf) for name, leaf in named(state).items()}
            numbers = {name: float(value) for name, value in (metrics or {}).items()}
            about = {
                _CHECKSUMS: {name: [described(flat[name]), as_text(each)] for name, each in checksums(flat).items()},
                _METRICS: numbers,
            }
            self._best.note(step, numbers)
            self._manager.save(step, args=ocp.args.PyTreeSave(flat), force=True, custom_metadata=about)
            return True

    def latest(self) -> int | None:
        """The most recent step that is whole, or None."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """The steps that are whole, rising."""
        return sorted(self._manager.all_steps())

    def restore_newest(self, like: Any) -> tuple[int, Any] | None:
        """Reads the most recent checkpoint that is not damaged; those behind it are said in a line each, and removed.

        Args:
          like: as for :meth:`restore`.

        Returns:
          Its step, and what :meth:`restore` gives of it; None where there is none at all.

        Raises:
          UserError: all are damaged, or one was written for another model or optimizer.
        """
        damaged: dict[int, DamagedError] = {}
        for step in reversed(agreed(self.steps)):
            try:
                state = self.restore(step, like)
            except DamagedError as error:
                damaged[step] = error
                continue
            for lost, error in damaged.items():
                console.note(f"{error}: going on from step {step}")
                # One that the disk does not let go is passed over at the next start as at this one.
                with suppress(OSError):
                    self._manager.delete(lost)
            return step, state
        if not damaged:
            return None
        raise UserError(f"{damaged[max(damaged)]}, and so is every other: delete {self.directory} to begin anew.")

    def restore(self, step: int, like: Any) -> Any:
        """Reads one checkpoint.

        Args:
          step: one of ``steps()``.
          like: a state of the same structure, of arrays or ``jax.ShapeDtypeStruct``; each leaf is put on the
            sharding it has there, and is tied to no device where it is not there.

        Returns:
          A pytree with the structure of ``like`` and, bit for bit, the values saved.

        Raises:
          DamagedError: it is not what was written.
          UserError: there is no such step, or it was written for another model or optimizer.
        """
        return self._read(step, like, "")

    def restore_part(self, step: int, name: str, like: Any) -> Any:
        """Reads one field of a checkpoint, and nothing else from disk.

        Args:
          step: one of ``steps()``.
          name: of the field, such as ``params``.
          like: as for ``restore``, of that field alone.

        Returns:
          A pytree with the structure of ``like``.

        Raises:
          UserError: as for ``restore``.
        """
        return self._read(step, {name: like}, f"{name}.")[name]

    def _read(self, step: int, like: Any, prefix: str) -> Any:
        self.wait()
        if step not in self._manager.all_steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise UserError(f"no checkpoint of step {step} in {self.directory}; there are: {known}")
        path = self.directory / str(step)
        with self._same_for_all(path):
            sums = self._about(step)[_CHECKSUMS]
            tree = self._manager.item_metadata(step).tree
            if {name: described(leaf) for name, leaf in tree.items()} != {name: each[0] for name, each in sums.items()}:
                raise DamagedError(f"checkpoint {path} is damaged (its own description differs from what was written)")
            tree = {name: leaf for name, leaf in tree.items() if name.startswith(prefix)}
            wanted = request(path, named(like), tree)
        args = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=bool(prefix),
        )
        with self._same_for_all(path):
            # Not by the manager, where all meet behind a read: whoever cannot read does not come there.
            flat = self._handler.restore(path / _ITEM, args=args)
        for name, found in checksums(flat).items():
            if sums[name][1] != as_text(found):
                raise DamagedError(f"checkpoint {path} is damaged ({name.partition('|')[0]!r} is not what was written)")
        return assemble(like, flat)

    @contextmanager
    def _same_for_all(self, path: epath.Path) -> Iterator[None]:
        """What one process cannot read within the block is damaged for all of them, or they would go on from different steps."""
        damaged = None
        try:
            yield
        except DamagedError as error:
            damaged = error
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore have no common class for a file that cannot be read
            mistake = None if self._address is None else bucket.mistake_of(self._address, error)
            if isinstance(mistake, (RefusedError, UnreachableError)):
                raise mistake from error
            damaged = DamagedError(f"checkpoint {path} is damaged (it cannot be read)")
            damaged.__cause__ = error
        lost = [index for index, found in enumerate(gathered(damaged is not None)) if found]
        if damaged is not None:
            raise damaged
        if lost:
            raise DamagedError(f"checkpoint {path} is damaged (process {lost[0]} cannot read it)")

    def _about(self, step: int) -> Mapping[str, Any]:
        """What stands beside a checkpoint; nothing where it is damaged."""
        try:
            about = self._manager.metadata(step).custom_metadata
        except Exception:  # as in _read
            return {}
        return about if isinstance(about, Mapping) else {}

    def wait(self) -> None:
        """Returns once every save is on disk.

        Raises:
          UserError: the disk refused one.
        """
        with self._told():
            self._manager.wait_until_finished()
            self._send()

    def _send(self) -> None:
        """Sends a bucket what Orbax cannot write there; the save before has to be on disk."""
        if self._carried is not None and not self._read_only:
            self._manager.wait_until_finished()
            self._carried.send(self._manager.all_steps())

    def close(self) -> None:
        """Waits, then gives the background threads back.

        Raises:
          UserError: the disk refused a save.
        """
        with self._told():
            try:
                self._manager.wait_until_finished()
                self._send()
            finally:
                self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        close_behind(kind, self.close)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # a full disk comes as OSError, ValueError or a status of XLA, by who met it
            known = None if self._address is None else bucket.mistake_of(self._address, error)
            refusal = _refusal(Path(self.directory), error) or known
            if refusal is None:
                raise
            raise refusal from error


def _hush() -> None:
    """Silences what follows a refused save: Orbax closes its event loop, and TensorStore tells it of each other write.

    Nobody can catch that, so Python would print a traceback for each, beside the error that ``Checkpoints`` raises.
    """
    show = sys.unraisablehook
    if getattr(show, "__module__", None) == __name__:
        return

    def hook(lost: Any) -> None:
        if not isinstance(lost.exc_value, RuntimeError) or str(lost.exc_value) != "Event loop is closed":
            show(lost)

    sys.unraisablehook = hook


def _refusal(path: Path, error: BaseException | None) -> UserError | None:
    while error is not None:
        if isinstance(error, OSError) and (known := disk_error(path, error)):
            return known
        for code, said in _REFUSED.items():
            if said.search(str(error)):
                return disk_error(path, OSError(code, str(error)))
        error = error.__cause__ or error.__context__
    return None


class _Best(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the best checkpoints. Orbax's own policy does not know them after a new start, or does not start at a torn number."""

    def __init__(self, count: int, metric: str | None, best: str) -> None:
        self._count, self._metric, self._sign = count, metric, 1.0 if best == "max" else -1.0
        self._scores: dict[int, float] = {}

    def note(self, step: int, metrics: Any) -> None:
        """Remembers how good a checkpoint is; one whose numbers are damaged is the worst."""
        value = metrics.get(str(self._metric)) if isinstance(metrics, Mapping) else None
        value = float(value) if isinstance(value, int | float) else math.nan
        self._scores[step] = -math.inf if math.isnan(value) else self._sign * value

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """See the base class."""
        steps = [each.step for each in checkpoints]
        kept = sorted(steps, key=lambda step: self._scores.get(step, -math.inf), reverse=True)[: self._count]
        return [step in kept for step in steps]
