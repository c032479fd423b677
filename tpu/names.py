"""What a user calls things, checked before anybody is asked for anything."""

import re

from immunax.runtime.errors import UserError

LONGEST = 40
"""Characters of a slice's or a job's name: what Google and Kubernetes append to it has to fit in 63."""
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z0-9]+")
_BUCKET = re.compile(r"gs://[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9](/[^\s]*)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def name(text: str) -> str:
    """A slice's, a job's or a queue's name.

    Args:
      text: as given.

    Raises:
      UserError: Google Cloud or Kubernetes would refuse it.
    """
    if _NAME.fullmatch(text) and len(text) <= LONGEST:
        return text
    better = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:LONGEST].strip("-")
    hint = f"; {better!r} would do" if better else ""
    raise UserError(
        f"name {text!r}: expected small letters, digits and dashes, a letter first, at most {LONGEST} of them{hint}."
    )


def zone(text: str | None) -> str:
    """A zone.

    Args:
      text: as given.

    Raises:
      UserError: it is none.
    """
    if text is None:
        raise UserError("no zone: give --zone, such as --zone us-west4-a.")
    if not _ZONE.fullmatch(text):
        raise UserError(f"--zone {text}: expected a zone, such as us-west4-a (a region and a letter).")
    return text


def bucket(text: str | None) -> str:
    """A folder of a bucket, without a slash at its end.

    Args:
      text: as given.

    Raises:
      UserError: it is none.
    """
    if text is None:
        raise UserError("no bucket: give --bucket gs://NAME, where code, wheels and logs go.")
    if not _BUCKET.fullmatch(text):
        raise UserError(f"--bucket {text}: expected gs://NAME or gs://NAME/FOLDER, in small letters.")
    return text.rstrip("/")


def variable(text: str) -> tuple[str, str]:
    """An environment variable and its value.

    Args:
      text: ``NAME=VALUE``.

    Raises:
      UserError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not _VARIABLE.fullmatch(key):
        raise UserError(f"--env {text}: expected NAME=VALUE.")
    if not value.isprintable():
        raise UserError(f"--env {key}: its value has a character that no line can carry ({value!a}).")
    return key, value


def positive(option: str, number: int) -> int:
    """A number of things.

    Args:
      option: that gives it.
      number: as given.

    Raises:
      UserError: it is less than one.
    """
    if number < 1:
        raise UserError(f"{option} {number}: expected a positive whole number.")
    return number
