"""The record of a run: what was run, on what, with which inputs, so that a stranger can run it again."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from immunax.runtime import atomic, code, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.leader import is_leader
from immunax.runtime.moved import current
from immunax.runtime.untrusted import values

FILE = "manifest.json"
_PACKAGES = ("immunax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
_GIT_SECONDS = 10


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_manifest(
    run_dir: Path | str,
    config: Mapping[str, Any],
    digests: Mapping[str, str],
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``manifest.json``, whole or not at all. Call it at the start and again, with ``ended``, at the end.

    Args:
      run_dir: the run's folder.
      config: the composed configuration, plain.
      digests: SHA-256 of data and weights, by name.
      extra: further entries, such as ``started`` and ``ended`` (from ``now``), seeds or results.

    Returns:
      Where it was, or on processes other than 0 will be, written.

    Raises:
      UserError: the disk is full or may not be written to.
    """
    path = Path(run_dir) / FILE
    if not is_leader():
        return path
    record = {
        "argv": sys.argv,
        "choices": choices(),
        "config": dict(config),
        "digests": dict(digests),
        "versions": versions(),
        "code": codes(path),
        "git": _git(Path(__file__).parent),
        "platform": _platform(),
        "written": now(),
        **(extra or {}),
    }
    with atomic.file(path) as temp:
        temp.write_text(json.dumps(record, indent=2, default=str) + "\n")
    return path


def end(run_dir: Path | str, extra: Mapping[str, Any]) -> None:
    """Notes in a run's manifest that it has ended, where all else that it says stays as it was when the run began.

    Args:
      run_dir: the run's folder.
      extra: further entries.

    Raises:
      UserError: the manifest cannot be read, the disk is full or may not be written to.
    """
    if not is_leader():
        return
    path = Path(run_dir) / FILE
    record = {**values.read_object(path), **extra, "ended": now()}
    with atomic.file(path) as temp:
        temp.write_text(json.dumps(record, indent=2) + "\n")


def read(run_dir: Path | str) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
      UserError: it is missing or cannot be read.
    """
    path = Path(run_dir) / FILE
    fix = f"choose another run, or delete {run_dir}"
    if not mirror.fetch(path).exists():
        raise UserError(f"{path} cannot be read: {fix}.")
    record = values.read_object(path, fix=fix)
    if not isinstance(record.get("config"), dict):
        raise UserError(f"{path} holds no configuration: {fix}.")
    return {**record, "config": current(record["config"])}


def codes(path: Path) -> list[str]:
    """SHA-256 of the package's code at every start of a run, in order, where it changed; this process's last.

    Args:
      path: of the manifest, which may be new.
    """
    before = values.read_object(path).get("code") if path.exists() else None
    known = before if isinstance(before, list) else []
    now = code.package_digest()
    return known if known[-1:] == [now] else [*known, now]


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that a result depends on; None where one is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _platform() -> dict[str, Any]:
    import jax  # which whoever reads the manifests of a thousand runs does without

    devices = jax.devices()
    return {
        "system": platform.platform(),
        "backend": jax.default_backend(),
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
    }


def choices() -> dict[str, str]:
    """What was chosen of each group of the configuration, by its name; nothing outside of a command."""
    from hydra.core.hydra_config import HydraConfig  # whoever reads manifests does without

    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return {
        str(group): str(choice)
        for group, choice in sorted(chosen.items())
        if not str(group).startswith("hydra/") and choice not in (None, "null")
    }


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and state of the checkout the package lies in, or None for an installed package."""
    commit = _ask_git(folder, "rev-parse", "HEAD")
    # A virtual environment inside somebody's checkout is not that checkout.
    tracked = _ask_git(folder, "ls-files", "--error-unmatch", "__init__.py")
    if commit is None or tracked is None:
        return None
    status = _ask_git(folder, "status", "--porcelain")
    return {"commit": commit, "dirty": bool(status)}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
