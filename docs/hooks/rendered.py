"""What pages say of commands, modules and ``conf/`` is made when the site is built, so that it is what the code has."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from immunax.runtime.experiments import COMMANDS, GROUP

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
CHOICES = "<!-- choices -->"
EXPERIMENTS = "<!-- experiments -->"
HELP = re.compile(r"^<!-- help (\w+) -->$", flags=re.M)
OTHERS = re.compile(r"^<!-- other modules of (\w+) -->$", flags=re.M)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills the places that a page leaves for choices, experiments, the help of commands and modules that it does not name."""
    if CHOICES in markdown:
        markdown = markdown.replace(CHOICES, choices(CONF))
    if EXPERIMENTS in markdown:
        markdown = markdown.replace(EXPERIMENTS, experiments(CONF / GROUP))
    markdown = OTHERS.sub(lambda place: others(ROOT / "immunax" / place[1], markdown), markdown)
    return HELP.sub(lambda place: f"```text\n{told(place[1])}\n```", markdown)


def choices(conf: Path) -> str:
    """A section for each configuration group, with a row for each choice; the parts of experiments are no choices by themselves.

    Args:
      conf: the folder of configuration.

    Returns:
      Markdown.
    """
    folders = sorted({path.parent for path in conf.rglob("*.yaml")} - {conf})
    folders = [folder for folder in folders if folder.relative_to(conf).parts[0] != GROUP]
    return "\n\n".join(_section(folder, folder.relative_to(conf).as_posix()) for folder in folders)


def experiments(folder: Path) -> str:
    """A row for each experiment: the title of its figure, or what its file says; and the sweeps that it has.

    Args:
      folder: of all of them.

    Returns:
      Markdown.
    """
    rows = []
    for each in sorted(path for path in folder.iterdir() if path.is_dir()):
        figure = each / "figure.yaml"
        if figure.exists():
            title = str(yaml.safe_load(figure.read_text(encoding="utf-8"))["title"])
        else:
            title = comment(sorted(each.rglob("*.yaml"))[0].read_text(encoding="utf-8"))
        sweeps = {command: sorted(path.stem for path in (each / command).glob("*.yaml")) for command in COMMANDS}
        told = "; ".join(f"`{command}`: {', '.join(scales)}" for command, scales in sweeps.items() if scales)
        rows.append(f"| `{each.name}` | {_cell(title)} | {told} |")
    return "\n".join(["| name | what | sweeps, and their scales |", "| --- | --- | --- |", *rows])


def others(room: Path, markdown: str) -> str:
    """The modules of a room that a page does not name yet.

    Args:
      room: a package.
      markdown: the page.

    Returns:
      Blocks that mkdocstrings reads.
    """
    found = sorted(path.stem if path.is_file() else path.name for path in room.iterdir() if _is_module(path))
    blocks = [f"::: immunax.{room.name}.{name}" for name in found]
    return "\n\n".join(block for block in blocks if block not in markdown.splitlines())


def comment(text: str) -> str:
    """What a YAML file says of itself: the lines of comment that it begins with.

    Args:
      text: the file.
    """
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(line for line in lines if line and not line.startswith("@package"))


def told(command: str) -> str:
    """What a command says when it is asked for help.

    Args:
      command: the name of its module in the package.
    """
    line = [sys.executable, "-m", f"immunax.{command}".removesuffix(".__main__"), "--help"]
    environment = {**os.environ, "COLUMNS": "100", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(line, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _is_module(path: Path) -> bool:
    return (path / "__init__.py").exists() or (path.suffix == ".py" and path.stem != "__init__")


def _section(folder: Path, group: str) -> str:
    rows = [
        f"| `{path.stem}` | {_cell(comment(path.read_text(encoding='utf-8')))} |"
        for path in sorted(folder.glob("*.yaml"))
    ]
    return "\n".join([f"## `{group}`", "", "| choice | what its file says |", "| --- | --- |", *rows])


def _cell(text: str) -> str:
    return re.sub(r"([|*_<\[\]])", r"\\\1", text)
