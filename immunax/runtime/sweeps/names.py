"""Names of a sweep's jobs: what differs from one to another, so that the same job has the same folder in every sweep."""

import re
from collections.abc import Iterable, Sequence

from omegaconf import OmegaConf

from immunax.runtime import digest, names

SEPARATOR = ";;"
"""Between the overrides of a job, as Hydra is told to write them; no value has it."""
RESOLVER = "immunax_job"
ELSEWHERE = "elsewhere.json"
"""In the folder of a sweep: by the names that its newest line gives to runs, the folders in there where those have ended."""
_ONE = "job"
"""What a sweep calls its only job."""
_LONGEST = 150  # characters; a file system takes 255 bytes


def job_folder() -> str:
    """What Hydra is told that a job's folder is called."""
    register()
    return '"${' + RESOLVER + ':${hydra:job.override_dirname}}"'


def register() -> None:
    """Makes the name that :func:`job_folder` gives known to this process."""
    OmegaConf.register_new_resolver(RESOLVER, lambda text: called(text.split(SEPARATOR)), replace=True)


def called(overrides: Iterable[str]) -> str:
    """The name of a job.

    Args:
      overrides: that differ from job to job, as ``trainer.seed=1``.

    Returns:
      Each by the end of its key that tells it from the others, such as ``defense=tar+seed=1``; where that is long, its digest.
    """
    pairs = [text.lstrip("+~").partition("=") for text in overrides if text]
    keys = [key for key, _, _ in pairs]
    parts = [f"{_end(key, keys)}={_slug(value)}" for key, _, value in sorted(pairs)]
    name = "+".join(parts) or _ONE
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{digest.of_json(sorted(pairs))[:8]}"


def _end(key: str, keys: Sequence[str]) -> str:
    parts = re.split(r"[.@/]", key)
    for count in range(1, len(parts) + 1):
        end = parts[-count:]
        if sum(re.split(r"[.@/]", other)[-count:] == end for other in keys) == 1:
            return ".".join(end)
    return ".".join(parts)


def _slug(value: str) -> str:
    return names.in_path(value).strip("_") or "_"
