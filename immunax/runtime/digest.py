"""Stable content hashes (SHA-256, hex) of files, of pytrees of arrays and of JSON-able objects.

Equal content has an equal digest in every process, on every machine and under every Python version, so a digest can
name a cache entry and can be quoted in a certificate.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from immunax.runtime import bucket, mirror, pace, stand_ins
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import below, check_plain, open_plain

_BLOCK_BYTES = 1 << 24


def of_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, those in the bucket where it stands for an object.

    Args:
      path: the file.

    Returns:
      64 hexadecimal digits.

    Raises:
      UserError: there is no such file, or it is no plain one.
    """
    address = stand_ins.address(path)
    return _of_local_file(Path(path)) if address is None else bucket.sha256(address)


def _of_local_file(path: Path) -> str:
    found = hashlib.sha256()
    with open_plain(path) as source:
        while block := source.read(_BLOCK_BYTES):
            pace.move()
            found.update(block)
    return found.hexdigest()


def of_folder(path: Path | str) -> dict[str, str]:
    """SHA-256 of every file below a folder.

    Args:
      path: the folder.

    Returns:
      ``{relative POSIX path: digest}``, sorted by path.

    Raises:
      UserError: as :func:`plain_files`.
    """
    root = Path(path)
    if mirror.is_mirrored(root):
        mirror.check_not_torn(root)
        return {name: of_file(root / name) for name in sorted(mirror.names(root)) if name != mirror.TORN}
    return of_local_folder(root)


def of_local_folder(root: Path) -> dict[str, str]:
    """:func:`of_folder` of what lies on this machine, also where it was brought from a bucket."""
    return {file.relative_to(root).as_posix(): _of_local_file(file) for file in plain_files(root)}


def plain_files(root: Path) -> list[Path]:
    """Every file below a folder that is digested: plain ones, and links to plain ones, by what they hold.

    Args:
      root: the folder, which may be a link itself.

    Returns:
      Their paths, sorted.

    Raises:
      UserError: there is no such folder; or below it a linked folder, whose files have no digest though they are read as any
        others, a device, a FIFO, a link to nothing, or a name that no statement can hold, as it is no text.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root}: it is needed for its digest; check the path")
    found = []
    for each in sorted(below(root)):
        if not _is_text(each.relative_to(root).as_posix()):
            raise UserError(f"{each}: its name is no UTF-8; rename it.")
        if each.is_symlink() and each.is_dir():
            raise UserError(f"{each} is a link to a folder, whose files have no digest here: put a copy in its place.")
        if not each.is_dir():
            check_plain(each)
            found.append(each)
    return found


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # of bytes that are no UTF-8 Python makes halves of pairs
        return False
    return True


def of_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value: key order, tuple or list, and int-valued keys do not matter.

    Args:
      value: nested dicts, lists, tuples, strings, numbers, booleans and None; paths count as their text.

    Returns:
      64 hexadecimal digits.

    Raises:
      TypeError: the value holds something JSON has no word for.
    """
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, np.generic):
        return _canonical(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def of_tree(tree: Any) -> str:
    """SHA-256 of a pytree of arrays: paths, shapes, dtypes and every element.

    Args:
      tree: a pytree whose leaves are arrays (JAX random keys included) or Python scalars.

    Returns:
      64 hexadecimal digits; independent of sharding and of the order of dictionary keys.
    """
    import jax  # which the digests of files and of settings do without

    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = _host(leaf)
        head = f"{jax.tree_util.keystr(path)}|{array.dtype.name}|{array.shape}|"
        total.update(head.encode())
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, _BLOCK_BYTES):
            total.update(flat[start : start + _BLOCK_BYTES].data)
    return total.hexdigest()


def _host(leaf: Any) -> np.ndarray:
    import jax
    import jax.numpy as jnp

    from immunax.runtime.together import host

    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(host(leaf))
    if array.dtype == object:
        raise TypeError(f"cannot digest a {type(leaf).__name__}: expected an array or a number")
    return array
