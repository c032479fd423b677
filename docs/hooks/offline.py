"""No page of the site may ask another machine for a script, a style, a font or a picture."""

import logging
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

_ASKED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
_LOG = logging.getLogger("mkdocs.hooks.offline")


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Warns, which ends a strict build, of what a page would fetch."""
    for address in asked(output):
        _LOG.warning("%s would fetch %s", page.file.src_uri, address)
    return output


def asked(html: str) -> list[str]:
    """The addresses that a page fetches from elsewhere when it is opened.

    Args:
      html: the page.
    """
    return _ASKED.findall(html)
