"""The pages beside a certificate: drawn from its statement and its tables alone, so that anyone can draw them anew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from immunax.certificate import bundle, signing, statement
from immunax.certificate.checks import Check, checked, few
from immunax.certificate.report import html, model_card
from immunax.conditions.records import CELLS_FILE, RECORDS_FILE, Table
from immunax.runtime import manifest
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted.files import read_bytes

OWN = (statement.FILE, signing.FILE, bundle.FILE, RECORDS_FILE, CELLS_FILE, html.FILE, model_card.FILE)
"""The files of a certificate."""
_RUN = (manifest.FILE, "cells", "certify.log", ".hydra", ".lock")
"""What a run leaves in its folder for whoever resumes it; nothing that is told of a certificate rests on it."""


def drawn(stated: Mapping[str, Any], records: Table, cells: Table) -> dict[str, bytes]:
    """The pages, by file.

    Args:
      stated: the statement.
      records, cells: its tables.
    """
    pages = {html.FILE: html.render(stated, records, cells), model_card.FILE: model_card.model_card(stated)}
    return {name: page.encode() for name, page in pages.items()}


def check(folder: Path, stated: Mapping[str, Any], records: Table, cells: Table) -> list[Check]:
    """Whether the pages of a folder say what the certificate does, and what else lies there.

    Args:
      folder: of the certificate.
      stated: the statement, which passed every other check.
      records, cells: its tables.
    """
    return [*(_page(folder / name, page) for name, page in drawn(stated, records, cells).items()), _beside(folder)]


def _page(path: Path, page: bytes) -> Check:
    name = f"page {path.name}"
    try:
        own = read_bytes(path, len(page) + 1)
    except UserError as error:
        if not _is_there(path):
            return Check(name, "not checked", "there is none")
        return Check(name, "failed", f"is not what the certificate says ({error})")
    return checked(name, None if own == page else "is not what the certificate says", "as drawn anew")


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _beside(folder: Path) -> Check:
    # Written so that no letter can be taken for another: a page of almost the right name is not the page.
    others = sorted(ascii(each.name)[1:-1] for each in folder.iterdir() if each.name not in (*OWN, *_RUN))
    if others:
        return Check("folder", "not checked", f"also there, and not of the certificate: {few(others)}")
    return Check("folder", "passed", "it holds nothing else")
