"""Safetensors folders: read tensor by tensor, written shard by shard.

Only safetensors are read: a pickled ``.bin`` can run any code when it is opened.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from immunax.models.finite import finite
from immunax.models.ranges import Ranged
from immunax.runtime import bucket, mirror, pace, stand_ins, together
from immunax.runtime.errors import UserError, nearest
from immunax.runtime.leader import is_leader
from immunax.runtime.lfs import refuse_pointer
from immunax.runtime.untrusted import values
from immunax.runtime.untrusted.files import is_plain, open_plain

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000
"""Largest shard written, in bytes: the Hub's own custom."""

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float16": np.dtype(np.float16)}
_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_ABOUT = "__metadata__"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lives: the file's name, its dtype (a key of :data:`DTYPES`), its shape and its first byte."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Shards:
    """The tensors of a folder; their data stay on disk until :meth:`read`.

    Attributes:
      directory: the folder.
      entries: tensor name to its place.
    """

    directory: Path
    entries: Mapping[str, TensorEntry]

    @property
    def dtype(self) -> str:
        """The narrowest dtype that holds every tensor exactly."""
        found = {entry.dtype for entry in self.entries.values()}
        return found.pop() if len(found) == 1 else "float32"

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the safetensors files, sorted."""
        return tuple(sorted({entry.file for entry in self.entries.values()}))

    def place(self, name: str, shape: tuple[int, ...]) -> TensorEntry:
        """Where a tensor lies.

        Args:
          name: the tensor's name.
          shape: what the configuration says it must be.

        Raises:
          UserError: there is no such tensor, or it has another shape.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise UserError(
                f"{self.directory}: tensor {name!r} is missing from the weights.{nearest(name, self.entries)}"
            )
        if entry.shape != tuple(shape):
            raise UserError(
                f"{self.directory / entry.file}: tensor {name!r} has shape {list(entry.shape)}, expected {list(shape)}."
            )
        return entry

    def read(self, name: str, shape: tuple[int, ...]) -> Any:
        """One tensor in the file's own dtype.

        Args:
          name, shape: as :meth:`place`.

        Returns:
          An array of ``shape``, a view of the file, or a :class:`~immunax.models.ranges.Ranged` of one in a bucket: nothing is
          read before it is used, nor kept after it is dropped.

        Raises:
          UserError: as :meth:`place`.
        """
        entry = self.place(name, shape)
        if (address := stand_ins.address(self.directory / entry.file)) is not None:
            return Ranged(address, name, DTYPES[entry.dtype], entry.start, entry.shape)
        return np.memmap(self.directory / entry.file, DTYPES[entry.dtype], "r", entry.start, entry.shape)

    def read_finite(self, name: str, shape: tuple[int, ...]) -> Any:
        """As :meth:`read`, of a tensor whose every value is finite, in a bucket of what is read.

        Raises:
          UserError: as :meth:`place`, or a value is NaN or infinite.
        """
        found = self.read(name, shape)
        if isinstance(found, Ranged):
            return replace(found, checked=True)
        return finite(found, name, str(self.directory / self.entries[name].file))


def find(directory: Path) -> Shards:
    """Opens a folder's ``model.safetensors``, or the shards its index names.

    Args:
      directory: a Hugging Face model folder.

    Returns:
      The tensors' places, with every header checked.

    Raises:
      UserError: there are no safetensors, one is damaged, a shard is missing, or a dtype is not supported.
    """
    index, present = directory / INDEX, _present(directory)
    if index.is_file():
        shards = Shards(directory, _from_index(index, present))
        if SINGLE in present and shards.files != (SINGLE,):
            raise UserError(
                f"{directory}: has two sets of weights, {SINGLE} and the {len(shards.files)} shards of {INDEX}; "
                "delete the older one (transformers would take the single file)."
            )
        return shards
    if SINGLE in present:
        return Shards(directory, scan(directory / SINGLE))
    found = sorted(present)
    if any(name.endswith(".safetensors") for name in found):
        raise UserError(f"{directory}: has safetensors but neither {SINGLE} nor {INDEX}; copy the missing file too.")
    pickled = [name for name in found if name.endswith(_PICKLED)]
    if pickled:
        raise UserError(
            f"{directory}: only pickled weights ({pickled[0]}); only safetensors are read, convert them first."
        )
    raise UserError(f"{directory}: no weights; expected {SINGLE} or {INDEX} with its shards.")


def _present(directory: Path) -> set[str]:
    """Names of the plain files in a folder."""
    if mirror.is_mirrored(directory):
        return {name for name in mirror.names(directory) if "/" not in name}
    return {path.name for path in directory.iterdir() if is_plain(path)}


def _from_index(index: Path, present: Collection[str]) -> dict[str, TensorEntry]:
    content = read_json(index)
    places = content.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise UserError(f"{index}: expected a non-empty weight_map of tensor names to files.")
    entries: dict[str, TensorEntry] = {}
    for name in sorted(set(places.values())):
        # A name with a folder in it could point anywhere on the disk.
        if Path(name).name != name or name not in present:
            raise UserError(f"{index} names {name}, which is not in the folder; copy or download that shard too.")
        if not name.endswith(".safetensors"):
            raise UserError(
                f"{index} names {name}, which is no .safetensors file; rename the shard, there and in the index."
            )
        entries |= scan(index.parent / name)
    for tensor, name in places.items():
        if tensor not in entries or entries[tensor].file != name:
            raise UserError(f"{index}: says tensor {tensor!r} is in {name}, which does not have it.")
    return entries


def scan(path: Path) -> dict[str, TensorEntry]:
    """Reads a safetensors header.

    Args:
      path: the file.

    Returns:
      Tensor name to its place.

    Raises:
      UserError: the file is damaged or cut short, or a dtype is not supported.
    """
    if (address := stand_ins.address(path)) is not None:
        return _scan_in_bucket(path, address)
    refuse_pointer(path)
    known = {code: dtype for dtype, code in _CODES.items()}
    entries = {}
    try:
        starts = _starts(path)
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 -- safe_open is no mapping
                part = file.get_slice(name)
                code = part.get_dtype()
                if code not in known:
                    raise UserError(f"{path}: tensor {name!r} has dtype {code}; expected one of {', '.join(known)}.")
                entries[name] = TensorEntry(path.name, known[code], tuple(part.get_shape()), starts[name])
    except (SafetensorError, OSError) as error:
        raise _damaged(path, " ".join(str(error).split())) from error
    return entries


def _starts(path: Path) -> dict[str, int]:
    """The first byte of each tensor, as the header says; whether it says so rightly, the library checks."""
    with open_plain(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(values.SETTINGS.size, path.stat().st_size):
            raise _damaged(path, f"a header of {length} bytes")
        header = file.read(length)
    try:
        said = values.loads(header)
        return {name: 8 + length + about["data_offsets"][0] for name, about in said.items() if name != _ABOUT}
    except values.MalformedError as error:
        raise _damaged(path, f"its header {error}") from error
    except (TypeError, AttributeError, LookupError) as error:
        raise _damaged(path, "a tensor without offsets") from error


def _scan_in_bucket(path: Path, address: str) -> dict[str, TensorEntry]:
    """The same of a file in a bucket, whose header is checked here: the library opens local files alone."""
    whole = bucket.about(address)
    size = 0 if whole is None else whole.size
    length = int.from_bytes(bucket.read(address, 0, min(8, size)), "little")
    if not 0 < length <= min(values.SETTINGS.size, size - 8):
        raise _damaged(path, f"a header of {length} bytes")
    known = {code: dtype for dtype, code in _CODES.items()}
    entries: dict[str, TensorEntry] = {}
    spans = []
    try:
        said = values.loads(bucket.read(address, 8, 8 + length))
        for name, about in said.items():
            if name == _ABOUT:
                continue
            if about["dtype"] not in known:
                raise UserError(
                    f"{path}: tensor {name!r} has dtype {about['dtype']}; expected one of {', '.join(known)}."
                )
            (start, end), shape, dtype = about["data_offsets"], tuple(about["shape"]), known[about["dtype"]]
            if not all(type(each) is int and each >= 0 for each in (start, end, *shape)):
                raise _damaged(path, f"tensor {name!r} of no size")
            if end - start != math.prod(shape) * DTYPES[dtype].itemsize:
                raise _damaged(path, f"tensor {name!r} of another size than its shape")
            spans.append((start, end))
            entries[name] = TensorEntry(path.name, dtype, shape, 8 + length + start)
    except values.MalformedError as error:
        raise _damaged(path, f"its header {error}") from error
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise _damaged(path, "a tensor without offsets") from error
    ends = [0, *(end for _, end in sorted(spans))]
    if [start for start, _ in sorted(spans)] != ends[:-1] or 8 + length + ends[-1] != size:
        raise _damaged(path, "tensors that do not fill it")
    return entries


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: damaged or incomplete safetensors ({reason}); {values.AGAIN}.")


def read_json(path: Path) -> dict:
    """Reads a JSON object from a file.

    Args:
      path: the file.

    Returns:
      Its content.

    Raises:
      UserError: the file does not exist or holds no JSON object.
    """
    if not path.exists():
        raise UserError(f"{path.parent}: no {path.name}; expected a folder that has one.")
    return values.read_object(path)


def write_json(path: Path, content: Mapping) -> None:
    """Writes a JSON object the way ``transformers`` does: two spaces, a final newline."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_dtype(dtype: str) -> str:
    """Returns ``dtype`` if weights can be written in it.

    Raises:
      UserError: it is not one of :data:`DTYPES`.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}.{nearest(dtype, DTYPES)}")
    return dtype


def write_shards(directory: Path, tensors: Iterable[tuple[str, Any]], dtype: str, max_shard_bytes: int) -> None:
    """Writes tensors as ``model.safetensors``, or as numbered shards with an index; of several processes each writes some.

    Args:
      directory: an empty folder; see :func:`immunax.runtime.together.directory` for writing a whole one.
      tensors: name and array, or what gives one when it is asked; each is copied only while it is written.
      dtype: ``float32``, ``bfloat16`` (rounded to nearest even) or ``float16``.
      max_shard_bytes: a new shard starts before it would grow past this.

    Raises:
      UserError: the dtype is unknown, or a value does not fit into it.
    """
    width = DTYPES[check_dtype(dtype)].itemsize
    shards: list[dict[str, Any]] = [{}]
    filled = total = 0
    for name, array in tensors:
        size = array.size * width
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = array
        filled, total = filled + size, total + size
    if len(shards) == 1:
        write_file(directory / SINGLE, shards[0], dtype)
        return
    places = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(directory / name, shard, dtype, (number - 1) % together.processes())
        places |= dict.fromkeys(shard, name)
    if is_leader():
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def write_file(path: Path, tensors: Mapping[str, Any], dtype: str, writer: int = 0) -> None:
    """Writes one safetensors file, converting one tensor at a time.

    The format (8 bytes of header length, a JSON header, the data) is written here because the library wants every
    converted tensor in memory at once and hides the operating system's error when the disk is full.

    Args:
      path: the file.
      tensors: name to array, or to what gives one when it is asked.
      dtype: see :func:`write_shards`.
      writer: the process that writes it; all others ask for the arrays, which may take all of them.

    Raises:
      UserError: a value does not fit into the dtype.
    """
    kind = DTYPES[check_dtype(dtype)]
    header: dict = {_ABOUT: {"format": "pt"}}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.size * kind.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(array.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") if together.index() == writer else nullcontext() as file:
        if file is not None:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, array in tensors.items():
            pace.move()
            values = np.asarray(array)
            if file is not None:
                file.write(_convert(name, values, kind).reshape(-1).view(np.uint8).data)


def _convert(name: str, array: np.ndarray, kind: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=kind)
    if kind == np.float16 and np.isinf(converted).any() and not np.isinf(array).any():
        raise UserError(
            f"tensor {name!r} has values past 65504, which float16 cannot hold; export bfloat16 or float32."
        )
    return converted
