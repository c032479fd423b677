"""What the processes of a job do together: wait, agree, and bring to the host what lies on all of them.

Every process has to come here as often, in the same order. Where there is one process, each is what it would be without the
others.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state
from jax.sharding import NamedSharding, PartitionSpec

from immunax.runtime import atomic, mirror, pace, watch
from immunax.runtime.errors import RefusedError, UserError
from immunax.runtime.escaped import say
from immunax.runtime.exits import EXIT_BUG, EXIT_LOST
from immunax.runtime.leader import is_leader

_FOREVER = 10**9
"""Milliseconds: who is silent, or does not come, is found by :mod:`~immunax.runtime.watch`, which knows who it is."""
_BLOCK_BYTES = 1 << 24

_met = 0
_ends = count()

T = TypeVar("T")


def processes() -> int:
    """How many there are; one for what a process makes by itself, within :func:`agreed`."""
    return jax.process_count() if jax.distributed.is_initialized() and not pace.is_alone() else 1


def barrier() -> None:
    """Returns once every process is here."""
    if processes() > 1:
        _client().wait_at_barrier(_name(), _FOREVER)


def agreed(make: Callable[[], T]) -> T:
    """What the leader makes, in every process; none of the others makes it.

    Args:
      make: of the leader's disk, clock or network; gives values of JSON. What may take minutes is to
        :func:`~immunax.runtime.pace.move` meanwhile.

    Raises:
      UserError: the leader's, in all.
    """
    if processes() == 1:
        return make()
    if is_leader():
        return _told(make)
    found = json.loads(_client().blocking_key_value_get(_name(), _FOREVER))
    if "error" in found:
        raise (RefusedError if found["refused"] else UserError)(found["error"])
    return found["value"]


def _told(make: Callable[[], T]) -> T:
    """What the leader makes, told to the others."""
    try:
        with pace.alone():
            value = make()
    except UserError as error:
        refused = isinstance(error, RefusedError)
        _client().key_value_set(_name(), json.dumps({"error": str(error), "refused": refused}))
        raise
    _client().key_value_set(_name(), json.dumps({"value": value}))
    return value


class Request:
    """What one process asks of all, of which the first counts. All make it together; where there is one, nothing is found."""

    def __init__(self) -> None:
        self._name = _name()

    def make(self, value: Any) -> None:
        """Asks; after another one it changes nothing.

        Args:
          value: of JSON.
        """
        if processes() > 1:
            with suppress(jax.errors.JaxRuntimeError):  # another one was first
                _client().key_value_set(self._name, json.dumps(value))

    def found(self) -> Any:
        """What was asked, None where nothing was."""
        if processes() > 1:
            with suppress(jax.errors.JaxRuntimeError):  # there is none
                return json.loads(_client().key_value_try_get(self._name))
        return None


def gathered(value: Any) -> list[Any]:
    """A value of JSON of every process, by its index."""
    if processes() == 1:
        return [value]
    name = _name()
    _client().key_value_set(f"{name}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_client().blocking_key_value_get(f"{name}/{each}", _FOREVER)) for each in range(processes())]


class ApartError(SystemExit):
    """One of several processes has failed by itself: the end of all, for a launcher to start again but where it is a mistake."""


def check_same_end(what: str, status: int) -> None:
    """Refuses to go on where a process has failed in something that the others are still at, or have done.

    No two would do the same from there on.

    Args:
      what: they have done.
      status: of this process; 0 where it went well.

    Raises:
      ApartError: one of them did not end it as this one did, from the same place.
    """
    if processes() == 1:
        return
    name, own, theirs = f"immunax/end/{next(_ends)}", [status, _met], [0, 0]
    if not status:
        pace.worked()
    _client().key_value_set(f"{name}/{jax.process_index()}", json.dumps(own))
    # Those that are at work meanwhile would say in the end that this one does not come.
    last = time.monotonic() + watch.patience() / 2 if status else math.inf
    try:
        for each in range(processes()):
            left = min(_FOREVER, 1000 * max(0.0, last - time.monotonic()))
            theirs = json.loads(_client().blocking_key_value_get(f"{name}/{each}", int(left)))
            if theirs != own:
                break
        else:
            if status:
                pace.worked()
            return
    except jax.errors.JaxRuntimeError:  # one has not come, or is gone
        pass
    if status:
        say(
            f"error: {what} failed in process {index()} alone: the job ends, and goes on where it is started again",
            error=True,
        )
    failed = status or theirs[0]
    raise ApartError(failed if failed > EXIT_BUG else EXIT_LOST)


def index() -> int:
    """Which of the processes this is."""
    return jax.process_index() if processes() > 1 else 0


def blind(folder: Path) -> int | None:
    """The first process that does not see a folder which the leader has made; None where all do."""
    return next((each for each, seen in enumerate(gathered(folder.is_dir())) if not seen), None)


@contextmanager
def directory(path: Path | str) -> Iterator[Path]:
    """:func:`~immunax.runtime.atomic.directory` that all processes fill, each with files of its own.

    Args:
      path: the folder to make or to replace.

    Yields:
      The empty folder to fill, the same in every process; for a place in a bucket each has one of its own.

    Raises:
      UserError: the disk refuses, or the processes do not see one another's files.
    """
    target = Path(path)
    if mirror.is_mirrored(target):
        with _sending(target) as folder:
            yield folder
        return
    with ExitStack() as stack:
        folder = Path(agreed(lambda: str(stack.enter_context(atomic.directory(path)))))
        if (other := blind(folder)) is not None:
            raise UserError(
                f"{path}: process {other} does not see what process 0 writes there; give a folder that all share."
            )
        with atomic.refusals(Path(path)):
            yield folder
        barrier()
    barrier()


@contextmanager
def _sending(target: Path) -> Iterator[Path]:
    """:func:`directory` for a place in a bucket: each process fills a folder of its own disk, and sends it."""
    with mirror.making(target) as folder:
        yield folder
        agreed(lambda: mirror.begin(target))
        sent: dict[str, Any] = {}
        for each in gathered(mirror.send(folder, target)):
            sent |= each
        agreed(lambda: mirror.end(target, sent))


def host(array: Any) -> np.ndarray:
    """A whole array in this process's memory, wherever its parts lie.

    Args:
      array: of JAX or NumPy; one that lies on the devices of several processes is sent through them block by block, and is split
        by the names of a mesh.
    """
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return _sent(array)


def behind(begun: Iterable[Any]) -> Iterator[Any]:
    """What programs give, on the host, each fetched once the next one is on its way, so that no device waits for the host.

    Args:
      begun: pytrees of arrays that programs are to give, begun as they are asked for.
    """
    # A CPU may take two programs at once, in which processes would meet in another order.
    ahead = 0 if processes() > 1 and jax.default_backend() == "cpu" else 1
    waiting: deque[Any] = deque()
    for each in begun:
        waiting.append(each)
        if len(waiting) > ahead:
            yield jax.tree.map(host, waiting.popleft())
    while waiting:
        yield jax.tree.map(host, waiting.popleft())


def _sent(array: jax.Array) -> np.ndarray:
    pace.worked()
    sharding = array.sharding
    assert isinstance(sharding, NamedSharding)
    axes = tuple(_axes(sharding.spec))
    local, ways = sharding.shard_shape(array.shape), math.prod(sharding.mesh.shape[axis] for axis in axes)
    rows = max(1, _BLOCK_BYTES // (ways * math.prod(local[1:]) * array.dtype.itemsize))
    whole, windows = np.empty(array.shape, array.dtype), _windows(sharding, axes, array.shape)
    for first in range(0, local[0], rows):
        size = min(rows, local[0] - first)
        for window, block in zip(windows, np.asarray(_blocks(sharding, axes, size, array, first)), strict=True):
            whole[window][first : first + size] = block
    return whole


def _axes(spec: PartitionSpec) -> Iterator[str]:
    """The mesh's axes that an array is split over."""
    for each in spec:
        yield from () if each is None else (each,) if isinstance(each, str) else each


def _windows(sharding: NamedSharding, axes: Sequence[str], shape: Sequence[int]) -> list[Any]:
    """The part of an array that each device along some axes of its mesh holds, the last axis fastest."""
    names, held = sharding.mesh.axis_names, sharding.devices_indices_map(tuple(shape))
    order = [names.index(axis) for axis in axes]
    # Devices along the other axes hold the same.
    devices = np.moveaxis(np.asarray(sharding.mesh.devices), order, range(len(order)))
    return [held[device] for device in devices.reshape(*devices.shape[: len(order)], -1)[..., 0].flat]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _blocks(sharding: NamedSharding, axes: tuple[str, ...], size: int, array: jax.Array, first: int) -> jax.Array:
    """Some rows of every device's part, on all of them: sliced before they are sent, so that no device holds all of the array."""

    def own(part: jax.Array, first: int) -> jax.Array:
        return jax.lax.all_gather(jax.lax.dynamic_slice_in_dim(part, first, size), axes)

    everywhere = PartitionSpec()
    return jax.shard_map(
        own, mesh=sharding.mesh, in_specs=(sharding.spec, everywhere), out_specs=everywhere, check_vma=False
    )(array, first)


def _client() -> Any:
    return global_state.client


def _name() -> str:
    """Of the next thing that all do together."""
    global _met
    _met += 1
    pace.worked()
    return f"immunax/together/{_met}"
