"""Checkpoints of a training state: written in the background, whole or not at all, restored bit for bit.

On disk each is an Orbax step folder holding one flat dictionary, from a leaf's path (``params.norm.scale``) to its
array, without compression: float32 weights hardly compress, and the time would be the run's. A JAX random key is
stored as its words, its path followed by ``|`` and the name of its generator.
"""

import errno
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from immunax.runtime.atomic import disk_error
from immunax.runtime.errors import UserError, close_behind

_NO_SPACE = re.compile(r"no space left|disk quota", re.IGNORECASE)


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
        self.directory = Path(directory).absolute()
        self._read_only = read_only
        policies: list[Any] = [ocp.checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            policies.append(_best(keep_best, str(metric), best))
        _hush()
        with self._told():
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
                    cleanup_tmp_directories=not read_only,
                    create=not read_only,
                    read_only=read_only,
                    # Orbax warns of its own default here when it may only read.
                    save_interval_steps=0 if read_only else 1,
                ),
                item_handlers=ocp.PyTreeCheckpointHandler(use_compression=False),
            )

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
            flat = {name: _stored(leaf) for name, leaf in _named(state).items()}
            numbers = {name: float(value) for name, value in (metrics or {}).items()}
            self._manager.save(step, args=ocp.args.PyTreeSave(flat), metrics=numbers, force=True)
            return True

    def latest(self) -> int | None:
        """The most recent step that is whole, or None."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """The steps that are whole, rising."""
        return sorted(self._manager.all_steps())

    def restore(self, step: int, like: Any) -> Any:
        """Reads one checkpoint.

        Args:
          step: one of ``steps()``.
          like: a state of the same structure, of arrays or ``jax.ShapeDtypeStruct``; each leaf is put on the
            sharding it has there, and is tied to no device where it is not there.

        Returns:
          A pytree with the structure of ``like`` and, bit for bit, the values saved.

        Raises:
          UserError: there is no such step, it is damaged, or it was written for another model or optimizer.
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
        try:
            stored = self._manager.item_metadata(step).tree
            tree = {name: leaf for name, leaf in stored.items() if name.startswith(prefix)}
            wanted = _request(path, _named(like), tree)
            args = ocp.args.PyTreeRestore(
                item=wanted,
                restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
                partial_restore=bool(prefix),
            )
            flat = self._manager.restore(step, args=args)
        except UserError:
            raise
        except Exception as error:  # Orbax and TensorStore have no common class for a file that cannot be read
            raise UserError(f"checkpoint {path} is damaged; delete it to resume from the one before") from error
        return _assemble(like, flat)

    def wait(self) -> None:
        """Returns once every save is on disk.

        Raises:
          UserError: the disk refused one.
        """
        with self._told():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then gives the background threads back.

        Raises:
          UserError: the disk refused a save.
        """
        with self._told():
            try:
                self._manager.wait_until_finished()
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
            refusal = _refusal(self.directory, error)
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
        if _NO_SPACE.search(str(error)):
            return disk_error(path, OSError(errno.ENOSPC, str(error)))
        error = error.__cause__ or error.__context__
    return None


def _best(count: int, metric: str, best: str) -> Any:
    sign = 1.0 if best == "max" else -1.0

    def score(metrics: Mapping[str, float]) -> float:
        value = float(metrics.get(metric, math.nan))
        return -math.inf if math.isnan(value) else sign * value

    return ocp.checkpoint_managers.BestN(get_metric_fn=score, n=count, keep_checkpoints_without_metrics=False)


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_free(leaf: Any) -> bool:
    """Whether a leaf is tied to no device, as a step's number is: it then goes with leaves on any mesh."""
    return isinstance(leaf, jax.Array) and not leaf.committed


def _path_name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _named(tree: Any) -> dict[str, Any]:
    """Leaf by path; a concrete random key's path ends with the name of its generator."""
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        concrete = _is_key(leaf) and isinstance(leaf, jax.Array)
        named[_path_name(path) + (f"|{jax.random.key_impl(leaf)}" if concrete else "")] = leaf
    return named


def _stored(leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _request(path: Path, like: dict[str, Any], tree: Mapping[str, Any]) -> dict[str, jax.ShapeDtypeStruct]:
    """What to read, by the name it is stored under; refuses a checkpoint of another shape."""
    wanted = {name.partition("|")[0]: leaf for name, leaf in like.items()}
    stored = {name.partition("|")[0]: name for name in tree}
    for name in sorted(wanted.keys() ^ stored.keys()):
        side = "has no" if name in wanted else "also has"
        raise UserError(f"checkpoint {path} {side} {name!r}: it was written for another model, defense or optimizer")
    request = {}
    for name, leaf in wanted.items():
        found, there = stored[name], tree[stored[name]]
        target = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        shape, dtype = np.shape(target), np.dtype(getattr(target, "dtype", None) or np.asarray(target).dtype)
        if tuple(there.shape) != shape or np.dtype(there.dtype) != dtype:
            raise UserError(
                f"checkpoint {path} has {name!r} as {np.dtype(there.dtype)}{list(there.shape)}, this run expects "
                f"{dtype}{list(shape)}: it was written for another configuration"
            )
        sharding = None if _is_key(leaf) else getattr(leaf, "sharding", None)
        request[found] = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return request


def _assemble(like: Any, flat: Mapping[str, Any]) -> Any:
    by_name = {name.partition("|")[0]: (name.partition("|")[2], value) for name, value in flat.items()}

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        generator, value = by_name[_path_name(path)]
        if _is_key(leaf):
            key = jax.random.wrap_key_data(jnp.asarray(value), impl=generator)
            return key if leaf.sharding is None or _is_free(leaf) else jax.device_put(key, leaf.sharding)
        if _is_free(leaf):
            return jnp.asarray(np.asarray(value))
        if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
            return value
        array = np.asarray(value)
        return array if isinstance(leaf, np.ndarray) else type(leaf)(array.item())

    return jax.tree_util.tree_map_with_path(one, like)
