"""What a user asks of a push, as words of a command line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from immunax.certificate import statement
from immunax.runtime import bucket
from immunax.runtime.errors import UserError
from immunax.runtime.names import HUB_ID
from immunax.runtime.word_command import sorted_out

HELP = """\
python -m immunax.push RUN_OR_FOLDER repo=OWNER/NAME [WORD=VALUE ...]

A model, its card and its certificate on the Hugging Face Hub, in one commit.

  repo=OWNER/NAME    where they go; it is made where it is not there
  certificate=PATH   of these very files, a folder of immunax.certify: checked first, and sent with them
  key=FILE           PEM file of the public key that the certificate has to be signed with
  bundle_key=FILE    the same for the signature model.sig of the files
  license=NAME       of the model, as the Hub names it, such as apache-2.0
  base_model=ID      the model that it was made from, where its run does not say it
  private=true       makes the repository for its owner alone; refuses one that all can see
  revision=BRANCH    main, where none is given
  replace=true       takes from the repository what belongs to another model or certificate
  dry_run=true       checks, says what would be sent, and sends nothing

RUN_OR_FOLDER is a run of immunax.train that has ended, of which model/ is sent, or a Hugging Face folder.
The token is that of HF_TOKEN or of hf auth login; HF_ENDPOINT names another Hub.

  python -m immunax.push outputs/NAME repo=OWNER/NAME certificate=outputs/NAME-certified license=apache-2.0 dry_run=true
  python -m immunax.verify OWNER/NAME                          # what anyone can check of it afterwards
  python -m immunax.attack model=OWNER/NAME +attack=harmful_sft"""

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SWITCHES = ("private", "replace", "dry_run")
_FILES = ("certificate", "key", "bundle_key")


@dataclass(frozen=True)
class Options:
    """The words of one command line; see :data:`HELP`.

    Attributes:
      model: the run, or the folder of a model.
      certificate: the file of that name.
    """

    model: Path
    repo: str
    certificate: Path | None = None
    key: Path | None = None
    bundle_key: Path | None = None
    license: str | None = None
    base_model: str | None = None
    private: bool = False
    revision: str | None = None
    replace: bool = False
    dry_run: bool = False


_WORDS = tuple(each.name for each in fields(Options) if each.name != "model")


def parse(words: Sequence[str]) -> Options:
    """The options of a command line.

    Args:
      words: as the user wrote them.

    Raises:
      UserError: one is unknown, missing, given twice, or has a value that it does not take.
    """
    given, others = sorted_out(words, _WORDS, _value)
    folders = [_path(word) for word in others]
    if len(folders) != 1:
        what = "no model" if not folders else f"{len(folders)} models"
        raise UserError(f"{what}: give one run of immunax.train, or the folder of one model.")
    if "repo" not in given:
        raise UserError("no repository: give repo=OWNER/NAME.")
    options = Options(folders[0], **given)  # pyright: ignore[reportArgumentType]
    needed = [f"{name}=" for name in ("key", "bundle_key") if name in given]
    if needed and options.certificate is None:
        raise UserError(f"{needed[0]} means nothing without certificate=; give that too, or leave it out.")
    return options


def _value(key: str, text: str) -> object:
    if not text:
        raise UserError(f"{key}=: expected a value.")
    if key in _SWITCHES:
        if text.lower() not in ("true", "false"):
            raise UserError(f"{key}={text}: expected true or false.")
        return text.lower() == "true"
    if key in ("repo", "base_model") and not HUB_ID.fullmatch(text):
        raise UserError(f"{key}={text}: expected OWNER/NAME.")
    if key == "license" and not _LICENSE.fullmatch(text):
        raise UserError(f"license={text}: expected a name of the Hub's, such as apache-2.0, llama3.1 or other.")
    if key in _FILES:
        path = _path(text)
        return path / statement.FILE if key == "certificate" and path.is_dir() else path
    return text


def _path(text: str) -> Path:
    if bucket.is_address(text):
        raise UserError(f"{text}: is in a bucket; copy it to a folder here, and push that.")
    return Path(text).expanduser()
