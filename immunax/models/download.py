"""Models of the Hugging Face Hub, brought to this machine's cache."""

from pathlib import Path

import huggingface_hub

from immunax.models import folder
from immunax.runtime import pace
from immunax.runtime.errors import UserError


def download(name: str, revision: str | None, everything: bool = False) -> Path:
    """Brings files of a repository, by default those that a model is read from; what the cache has already is not fetched again.

    Bytes that arrive show that this process is at work: the others of its job wait for a large model as long as it comes.

    Args:
      name: such as ``Qwen/Qwen3-0.6B``.
      revision: commit, branch or tag; None for the default one.
      everything: brings all files there are.

    Returns:
      The folder.

    Raises:
      UserError: the Hub gave none.
    """
    patterns: list[str] | None = None if everything else list(folder.DOWNLOADED)
    try:
        fetched = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns, tqdm_class=_Bar)
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        at = f" at {revision} (model.revision)" if revision else ""
        raise UserError(
            f"model {name!r}{at}: no such folder here, and the Hugging Face Hub gave none ({reason.rstrip('.')}); "
            "check the id, the network and, for gated models, HF_TOKEN."
        ) from error
    return Path(fetched)


class _Bar(huggingface_hub.utils.tqdm):
    def update(self, n: float | None = 1) -> bool | None:
        pace.move()
        return super().update(n)
