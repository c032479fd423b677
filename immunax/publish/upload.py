"""One commit on the Hugging Face Hub: everything or nothing of it stands there."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors

from immunax.certificate.checks import few
from immunax.publish.files import BRANCH, Item, is_ours
from immunax.runtime.errors import UserError

_MEANS = {
    400: "the Hub refuses what was sent",
    401: "the Hub does not know the token; log in with hf auth login, or set HF_TOKEN",
    402: "there is no room left in the account",
    403: "the token may not write there; take one with that right, of the owner or of a member",
    404: "there is no such repository, or the token may not see it",
    409: "somebody else is changing it; push again",
    412: "it was changed meanwhile; look at it, and push again",
    413: "a file is larger than the Hub takes",
    429: "the Hub was asked too often; wait, and push again",
    507: "there is no room left in the account",
}


class Sent(NamedTuple):
    """What a push has done.

    Attributes:
      address: of the repository.
      commit: that the branch is at.
      new: whether it was made; else everything was there already.
    """

    address: str
    commit: str
    new: bool


def send(
    repo: str,
    items: Sequence[Item],
    message: str,
    branch: str | None = None,
    private: bool = False,
    replace: bool = False,
) -> Sent:
    """Makes the repository and the branch where they are not there, and one commit.

    Args:
      repo: as ``OWNER/NAME``.
      items: what is sent.
      message: of the commit.
      branch: None for the main one.
      private: whether none but its owner may see the repository.
      replace: whether files of another model or certificate are removed in the same commit; they are refused else.

    Returns:
      What was done.

    Raises:
      UserError: there is no token, the Hub refuses or cannot be reached, the repository is public or holds something else, or a
        file has changed since it was checked.
    """
    with _told(repo):
        api = HfApi()
        if huggingface_hub.get_token() is None:
            raise UserError("no token of the Hub: log in with hf auth login, or set HF_TOKEN.")
        head, old = _found(api, repo, branch, private, {each.name for each in items}, replace)
        added = [CommitOperationAdd(path_in_repo=each.name, path_or_fileobj=each.source) for each in items]
        api.preupload_lfs_files(repo, added, revision=branch, free_memory=False)
        _check(items, added)
        removed = [CommitOperationDelete(path_in_repo=name) for name in old]
        done = api.create_commit(repo, [*added, *removed], commit_message=message, revision=branch, parent_commit=head)
    return Sent(f"{constants.ENDPOINT}/{repo}", done.oid, done.oid != head)


def _found(
    api: HfApi, repo: str, branch: str | None, private: bool, names: set[str], replace: bool
) -> tuple[str, list[str]]:
    """The commit to stand on, and the files of the branch that belong to something else."""
    new = branch is not None and branch != BRANCH
    try:
        there = api.model_info(repo)
    except errors.RepositoryNotFoundError:
        api.create_repo(repo, private=private or None, exist_ok=True)
        there = api.model_info(repo)
    if private and not there.private:
        raise UserError(f"{repo}: everybody can see it, and private=true was asked; nothing was sent.")
    if new:
        with suppress(errors.RevisionNotFoundError):
            there, new = api.model_info(repo, revision=branch), False
    others = [each.rfilename for each in there.siblings or ()]
    old = sorted(name for name in others if is_ours(name) and name not in names)
    if old and not replace:
        raise UserError(
            f"{repo}: holds {few(old)} of another model or certificate; give replace=true to remove that in the same commit."
        )
    if new:
        api.create_branch(repo, branch=str(branch), exist_ok=True)
    return str(there.sha), old


def _check(items: Sequence[Item], added: Sequence[CommitOperationAdd]) -> None:
    """Refuses a commit that would be other than what was checked, or less."""
    for item, each in zip(items, added, strict=True):
        if each.upload_info.sha256.hex() != item.sha256:
            raise UserError(f"{item.name}: was changed while it was sent; no commit was made, push again.")
        if getattr(each, "_should_ignore", False):
            raise UserError(f"{item.name}: the repository's .gitignore leaves it out; mend that file there first.")


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Tells in one line what the Hub refuses; what the library warns of is no news."""
    level = huggingface_hub.logging.get_verbosity()
    huggingface_hub.logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="It seems that you are about to commit a data file")
            yield
    except (OSError, ValueError, RuntimeError, huggingface_hub.errors.HTTPError) as error:
        end = "push again to see whether it came through" if _is_open(error) else "no commit was made"
        raise UserError(f"{repo}: {_without_token(_reason(error))}; {end}.") from error
    finally:
        huggingface_hub.logging.set_verbosity(level)


def _is_open(error: BaseException) -> bool:
    """Whether the Hub may have made a commit and could not say so."""
    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, huggingface_hub.errors.HTTPError)


def _reason(error: BaseException) -> str:
    # A file that fails to upload is told by the library with the cause behind it.
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the Hub; unset it"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = " ".join((error.server_message or "").split())
        means = _MEANS.get(status, "the Hub has a fault" if status >= 500 else "the Hub refuses")
        return f"{means} ({status}{f': {said}' if said else ''})"
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, huggingface_hub.errors.HTTPError):
        return f"{constants.ENDPOINT} cannot be reached ({said}); check the network and HF_ENDPOINT"
    return said


def _without_token(text: str) -> str:
    token = huggingface_hub.get_token()
    return text.replace(token, "TOKEN") if token else text
