"""Looks at a page in headless Chromium, for tests."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest


class Seen(NamedTuple):
    """Messages, errors and requests to a network; the width that the page takes; the contrast of its text."""

    told: list[str]
    width: int
    contrast: float


def look(path: Path, width: int, scheme: str) -> Seen:
    """Opens a page; skips the test where there is no Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        told = []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        # A closed part has no width.
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        taken = page.evaluate("document.documentElement.scrollWidth")
        ink, paper = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
        opened.close()
    return Seen(told, taken, _contrast(ink, paper))


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.strip("rgb()").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)
