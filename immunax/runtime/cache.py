"""A cache of things that are slow to make, each named by the digest of what it was made from.

An entry is a folder ``<root>/<kind>/<digest>``: its content, and ``entry.json`` with the key and the digest of every
file. It appears whole or not at all. A lock beside it keeps two processes from making the same thing twice; the
system drops the lock of a process that dies. A cache that is read-only, or on a full disk, is read all the same. Of one in a
bucket this machine keeps copies; two machines may make the same thing, and what the last one sends is kept.
"""

import json
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh
from safetensors import safe_open
from safetensors.numpy import save_file

from immunax.runtime import atomic, bucket, console, digest, lock, mirror, stand_ins, together
from immunax.runtime.code import code_digest
from immunax.runtime.errors import RefusedError, UserError
from immunax.runtime.leader import is_leader
from immunax.runtime.placement import fill

_ROOT, _PROGRAMS = "IMMUNAX_CACHE", "JAX_COMPILATION_CACHE_DIR"
_ENTRY = "entry.json"
_ARRAYS = "arrays.safetensors"
_SEPARATOR = "/"
_BLOCK_BYTES = 1 << 24
_PROBE_BYTES = 1 << 16

_said: set[Path] = set()
_all_write = False

T = TypeVar("T")


def root() -> Path:
    """The cache folder: ``$IMMUNAX_CACHE``, else ``immunax`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get(_ROOT):
        return mirror.local(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "immunax"


def get_or_make(
    kind: str,
    key: Mapping[str, Any],
    make: Callable[[], T],
    read: Callable[[Path], T],
    write: Callable[[T, Path], None],
    code: Iterable[Any],
    alone: bool = False,
) -> T:
    """What the cache holds under a key; made when it is missing or damaged, and kept there if the disk takes it.

    Args:
      kind: what it is, a folder's name.
      key: everything it depends on beside this package's own code; JSON-able.
      make: makes it.
      read: reads it back from the entry's folder.
      write: writes it into an empty folder.
      code: the functions that make it, and the objects or configurations that they are given: an edit of any module that
        can change what they do makes it anew, see :func:`~immunax.runtime.code.code_digest`.
      alone: whether, of several processes, the first one makes it by itself; otherwise all make it together.

    Returns:
      The value as it is read, also where it was just made: it lies on the same devices.

    Raises:
      UserError: there can be no such folder, or not even the system's folder for temporary files takes the value.
    """
    key = {**key, "code": code_digest(code)}
    entry = root() / kind / digest.of_json(key)
    if together.processes() > 1:
        return _get_or_make_together(entry, key, make, read, write, alone)
    return _get_or_make(entry, key, make, read, write)


def _get_or_make(
    entry: Path,
    key: Mapping[str, Any],
    make: Callable[[], T],
    read: Callable[[Path], T],
    write: Callable[[T, Path], None],
) -> T:
    # Without the lock, which a cache that may only be read has no place for: an entry appears whole.
    if (found := _found(entry, read)) is not None:
        return found[0]
    with _lock(entry) as refusal:
        if refusal is None and (found := _found(entry, read, told=True)) is not None:
            return found[0]
        value = make()
        try:
            if refusal is not None:
                raise refusal
            _keep(entry, key, value, write)
        except RefusedError as error:
            _say_nothing_is_kept(error)
            return _passed_on(value, read, write, error)
        del value
        return read(mirror.fetch(entry))


def _get_or_make_together(
    entry: Path,
    key: Mapping[str, Any],
    make: Callable[[], T],
    read: Callable[[Path], T],
    write: Callable[[T, Path], None],
    alone: bool,
) -> T:
    """The same for several processes, of which the leader alone looks and writes; no lock is held while they make it."""

    def there() -> bool:
        if alone:
            _get_or_make(entry, key, make, read, write)
        return _is_whole(entry, told=True)

    if not (together.agreed(there) and all(together.gathered(_is_brought(entry)))):
        value = make()
        try:
            _keep_together(entry, key, value, write)
        except RefusedError as error:
            _say_nothing_is_kept(error)
            return _passed_on(value, read, write, error)
        del value
    mirror.fetch(entry)
    if (other := together.blind(entry)) is not None:
        raise UserError(
            f"the cache {root()} of process {other} is not that of process 0: set IMMUNAX_CACHE=FOLDER to one that all of "
            "them see"
        )
    return read(entry)


def _found(entry: Path, read: Callable[[Path], T], told: bool = False) -> tuple[T] | None:
    """What an entry holds; None where there is none, or it is damaged."""
    if mirror.is_mirrored(entry):
        if not mirror.is_whole(entry):
            return None
        mirror.fetch(entry)
    if not entry.is_dir():
        return None
    try:
        _verify(entry)
        return (read(entry),)
    except Exception as error:  # whatever the reader trips over, making the value again mends it
        if told:
            warnings.warn(f"cache entry {entry} is damaged ({error}); making it again", stacklevel=3)
        return None


def _is_whole(entry: Path, told: bool = False) -> bool:
    return _found(entry, lambda folder: None, told) is not None


def _is_brought(entry: Path) -> bool:
    """Whether this process has an entry as it was written, where each host has a copy of its own; the leader has looked."""
    return is_leader() or not mirror.is_mirrored(entry) or _is_whole(entry)


def _keep(entry: Path, key: Mapping[str, Any], value: T, write: Callable[[T, Path], None]) -> None:
    with atomic.directory(entry) as temp:
        _fill(temp, key, value, write)


def _keep_together(entry: Path, key: Mapping[str, Any], value: T, write: Callable[[T, Path], None]) -> None:
    """:func:`_keep` of several processes, of which the leader writes; what it is refused, all are."""
    folders: list[Path] = []
    refusal = None
    try:
        with ExitStack() as stack:
            together.agreed(lambda: folders.append(stack.enter_context(_place(entry))))
            if is_leader():
                _fill(folders[0], key, value, write)
            else:
                # Bringing arrays here takes all processes: the others write what stands beside them, and throw it away.
                folders.append(Path(stack.enter_context(tempfile.TemporaryDirectory())))
                write(value, folders[0])
    except UserError as error:
        if not folders:  # which all were told
            raise
        refusal = error
    together.agreed(lambda: _raise(refusal))


@contextmanager
def _place(entry: Path) -> Iterator[Path]:
    """A folder that becomes an entry, or is thrown away where another job has made the same meanwhile, which may be read."""
    with tempfile.TemporaryDirectory() if _is_whole(entry) else atomic.directory(entry) as folder:
        yield Path(folder)


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _fill(temp: Path, key: Mapping[str, Any], value: T, write: Callable[[T, Path], None]) -> None:
    write(value, temp)
    about = {"key": json.loads(json.dumps(key, default=str)), "files": digest.of_local_folder(temp)}
    (temp / _ENTRY).write_text(json.dumps(about, indent=2) + "\n")


def _passed_on(value: T, read: Callable[[Path], T], write: Callable[[T, Path], None], refusal: RefusedError) -> T:
    """A value as it would be read from the cache, by way of the system's folder for temporary files."""
    try:
        with tempfile.TemporaryDirectory() as temp:
            folder = Path(temp) / "value"
            with atomic.directory(folder) as empty, _each_for_itself():
                write(value, empty)
            return read(folder)
    except OSError as error:
        raise refusal from error


@contextmanager
def _each_for_itself() -> Iterator[None]:
    """Within the block every process writes, in place of the leader alone."""
    global _all_write
    _all_write = True
    try:
        yield
    finally:
        _all_write = False


def _writes() -> bool:
    return _all_write or is_leader()


def _say_nothing_is_kept(error: RefusedError, where: Path | None = None) -> None:
    where = where or root()
    if where not in _said:
        _said.add(where)
        console.note(f"the cache keeps nothing new, what it lacks is made anew at every start: {error}")


@contextmanager
def _lock(entry: Path) -> Iterator[RefusedError | None]:
    """Holds the lock of an entry; gives why not, where the disk has no place for it."""
    with ExitStack() as stack:
        try:
            with _told(entry):
                stack.enter_context(lock.held(entry.with_name(entry.name + ".lock")))
            refusal = None
        except RefusedError as error:
            refusal = error
        yield refusal


@contextmanager
def _told(path: Path, variable: str = _ROOT) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        refusal = atomic.disk_error(path, error)
        raise type(refusal)(f"{refusal}: set {variable}=FOLDER") if refusal else error from error


def _verify(entry: Path) -> None:
    promised = json.loads((entry / _ENTRY).read_text())["files"]
    found = {name: value for name, value in digest.of_local_folder(entry).items() if name != _ENTRY}
    changed = sorted(name for name in promised.keys() | found.keys() if promised.get(name) != found.get(name))
    if changed:
        raise ValueError(f"{changed[0]} is not what was written")


def write_arrays(tree: Mapping[str, Any], folder: Path) -> None:
    """Writes nested dictionaries of arrays as one safetensors file.

    Args:
      tree: names without ``/``; leaves NumPy or JAX arrays.
      folder: where to.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator=_SEPARATOR): leaf for path, leaf in leaves}
    whole = {name: np.ascontiguousarray(array) for name, array in _of_who_writes(flat)}
    if _writes():
        save_file(whole, folder / _ARRAYS)


def _of_who_writes(leaves: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    for name, leaf in leaves.items():
        array = together.host(leaf)
        if _writes():
            yield name, array


def read_arrays(folder: Path, devices: Mesh | None = None) -> dict[str, Any]:
    """Reads what ``write_arrays`` wrote.

    Args:
      folder: where from.
      devices: the mesh that the arrays are split over; None is the default device.

    Returns:
      The nested dictionaries, of JAX arrays of the same dtypes.
    """
    tree: dict[str, Any] = {}
    file = folder / _ARRAYS
    with safe_open(file, framework="np") as opened:
        names = list(opened.keys())
    for name in names:
        *parents, leaf = name.split(_SEPARATOR)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _read_array(file, name, devices)
    return tree


def _read_array(file: Path, name: str, devices: Mesh | None) -> jax.Array:
    # Opened for each: the pages that were read count as the process's memory until the file is closed.
    with safe_open(file, framework="np") as opened:
        part = opened.get_slice(name)
        shape, dtype = part.get_shape(), part[:1].dtype
        rows = max(1, _BLOCK_BYTES // (math.prod(shape[1:]) * dtype.itemsize))
        pieces = ((first, part[first : min(first + rows, shape[0])]) for first in range(0, shape[0], rows))
        return fill(name.split(_SEPARATOR), shape, dtype, pieces, devices)


def enable_compilation_cache() -> Path:
    """Keeps compiled programs between runs: everything that takes over a second to compile, whatever its size.

    They are kept where JAX's own ``JAX_COMPILATION_CACHE_DIR`` says, else with the rest of the cache. Where the disk takes no
    more, those that are there are used.

    Returns:
      Where they are kept.

    Raises:
      UserError: there can be no such folder.
    """
    given = os.environ.get(_PROGRAMS)
    folder = mirror.local(given) if given else root() / "xla"
    address = stand_ins.address(folder)
    least = 1.0
    try:
        if address is not None:
            together.agreed(lambda: bucket.check_writable(address))
            bucket.prepare(address)
        else:
            _try(folder, _PROGRAMS if given else _ROOT)
    except RefusedError as error:
        _say_nothing_is_kept(error, folder if given else None)
        least = math.inf  # or JAX would try it with every program, and warn
    if address is not None or folder.is_dir():
        jax.config.update("jax_compilation_cache_dir", address or str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


def _try(folder: Path, variable: str) -> None:
    with _told(folder, variable):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
