"""The code that runs: a commit, as an archive on the bucket."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from immunax.runtime.errors import UserError, shown
from tpu.calls import Calls, told
from tpu.slices import ROOT

_SUPPOSED = "0" * 40
_RUNS = ("immunax/", "hydra_plugins/", "conf/", "tpu/")
"""Where a new file would be part of what runs."""


class Source(NamedTuple):
    """A commit on the bucket.

    Attributes:
      commit: its whole name.
      archive: where it lies.
    """

    commit: str
    archive: str


def uploaded(calls: Calls, bucket: str, dirty: bool) -> Source:
    """Puts the current commit on the bucket, where it is not there yet.

    Args:
      calls: programs outside.
      bucket: ``gs://NAME``.
      dirty: run the commit although the checkout has changes, which are left out.

    Raises:
      UserError: the checkout has changes that would not run.
      OutsideError: git or the bucket fails.
    """
    git = ("git", "-C", str(ROOT))
    found = calls.must([*git, "status", "--porcelain", "--untracked-files=all"]).splitlines()
    changed = [line for line in found if not line.startswith("??") or line[3:].startswith(_RUNS)]
    if changed and not dirty:
        raise UserError(
            f"{len(changed)} changed files, such as {shown(changed[0][3:])}, are in no commit and would not run there: commit "
            "them, or give --dirty to leave them out."
        )
    commit = calls.must([*git, "rev-parse", "HEAD"], _SUPPOSED).strip()
    place = f"{bucket}/code/{commit}.tar.gz"
    if (
        calls.ask(["gcloud", "storage", "objects", "describe", place, "--format=value(name)"]).status == 0
        and not calls.dry
    ):
        return Source(commit, place)
    with tempfile.TemporaryDirectory() as folder:
        file = Path("/tmp/immunax.tar.gz") if calls.dry else Path(folder, "immunax.tar.gz")
        calls.must([*git, "archive", "--format=tar.gz", f"--output={file}", commit])
        told(f"uploading {commit[:12]} to {place}")
        calls.must(["gcloud", "storage", "cp", str(file), place, "--quiet"])
    return Source(commit, place)
