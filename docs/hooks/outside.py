"""Pages that lie outside ``docs/`` stand in the site too: recorded experiments, benchmarks and the launcher, with their pictures.

In the site they have the paths that they have in the repository, so that one rule serves every relative link: it is read as in
the repository, and leads to the page where the site has it. What only the repository has becomes text.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ("experiments/*/README.md", "benchmarks/README.md", "tpu/*.md")
PICTURES = (".png", ".svg")
FIGURES = "<!-- figures -->"
SECTION = "Experiments"

_FENCE = re.compile(r"(^ *```.*?^ *```$)", flags=re.M | re.S)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts each experiment into the navigation."""
    experiments = [uri for uri in _pages() if uri.startswith("experiments/")]
    (tab,) = [part for each in config.nav or [] for part in each.values() if _has_section(part)]
    next(part for part in tab if _is_section(part))[SECTION] = experiments
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages, and every picture beside them or below."""
    for uri in _pages():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / uri)))
        for picture in _pictures((ROOT / uri).parent):
            files.append(File.generated(config, _uri(picture), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads links of the repository to the site's pages, and draws the gallery."""
    source = page.file.src_uri
    if FIGURES in markdown:
        markdown = markdown.replace(FIGURES, gallery(ROOT / "experiments"))
    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: _led(link, source, files), part) for part in parts[::2]]
    return "".join(parts)


def gallery(experiments: Path) -> str:
    """Every picture of every experiment, with the first heading of its README; those without a picture as a list.

    Args:
      experiments: the folder of experiments.

    Returns:
      Markdown with HTML in it, whose links are those of a page in ``docs/``.
    """
    shown, others = [], []
    for folder in sorted(each for each in experiments.iterdir() if each.is_dir()):
        readme = folder / "README.md"
        title = heading(readme) if readme.exists() else folder.name
        line = f"[{title}](../{_uri(readme)})" if readme.exists() else title
        pictures = [each for each in _pictures(folder) if not _is_drawn_again(each)]
        shown += [
            f"<figure markdown>\n![{title}](../{_uri(each)})\n<figcaption markdown>{line}</figcaption>\n</figure>"
            for each in pictures
        ]
        others += [f"- {line}"] if readme.exists() and not pictures else []
    figures = "\n".join(['<div class="figures" markdown>', *shown, "</div>"])
    return "\n\n".join([figures, "## Without a picture", "\n".join(others)])


def heading(page: Path) -> str:
    """The first heading of a Markdown file, or the name of its folder."""
    found = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return found[1].strip() if found else page.parent.name


def _led(link: re.Match, source: str, files: Files) -> str:
    picture, text, target = link.groups()
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:|/", path):
        return link[0]
    here = source if _outside(source) else f"docs/{source}"
    there = posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
    uri = there.removeprefix("docs/")
    if files.get_file_from_path(uri) is not None:
        way = posixpath.relpath(uri, posixpath.dirname(source) or ".")
        return f"{picture}[{text}]({way}{'#' + anchor if anchor else ''})"
    # What is nowhere stays a link, for the build to refuse.
    return text if (ROOT / there).exists() and not there.startswith("docs/") else link[0]


def _pages() -> list[str]:
    return [_uri(path) for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in PICTURES)


def _is_drawn_again(picture: Path) -> bool:
    """Whether it stands beside its own drawing without pixels."""
    return picture.suffix != ".svg" and picture.with_suffix(".svg").exists()


def _outside(uri: str) -> bool:
    return any(Path(uri).match(pattern) for pattern in PAGES)


def _uri(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _has_section(part: object) -> bool:
    return isinstance(part, list) and any(map(_is_section, part))


def _is_section(part: object) -> bool:
    return isinstance(part, dict) and SECTION in part
