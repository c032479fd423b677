"""A notebook is a page of the site: its text, its code, and the outputs that are stored in it. Nothing of it is run.

The page has the notebook's path, so that links to it are those of the repository; pictures, and the file itself for whoever wants
to run it, lie in a folder of its name.
"""

import base64
import re
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbformat import NotebookNode

_TITLE = re.compile(r"^#+ (.+)$", flags=re.M)
_TICKS = re.compile(r"^`{3,}", flags=re.M)


class Notebook(File):
    """A notebook that MkDocs takes for a page."""

    def is_documentation_page(self) -> bool:
        """Always."""
        return True


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Puts a page in the place of each notebook."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        path = Path(str(file.abs_src_path))
        text, pictures = rendered(nbformat.read(path, as_version=4), path.stem)
        below = file.src_uri.removesuffix(".ipynb")
        own = (
            f"[Download this page as a notebook]({path.stem}/{path.name}); what it shows was computed by running it.\n"
        )
        files.remove(file)
        files.append(Notebook.generated(config, file.src_uri, content=f"{text}\n{own}"))
        files.append(File.generated(config, f"{below}/{path.name}", abs_src_path=str(path)))
        for name, content in pictures.items():
            files.append(File.generated(config, f"{below}/{name}", content=content))
    return files


def rendered(book: NotebookNode, folder: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown.

    Args:
      book: with its outputs.
      folder: where the pictures will lie, seen from the page.

    Returns:
      The page; the pictures by name.
    """
    parts, pictures, title = [], {}, ""
    for cell in book.cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            title = (_TITLE.findall(cell.source) or [title])[-1]
            continue
        parts.append(_fenced(cell.source, "python"))
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![{title}]({folder}/{name}){{ .output }}")
            else:
                parts.append(_fenced(output.get("text") or data["text/plain"], "{ .text .output }"))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n", pictures


def _fenced(text: str, language: str) -> str:
    ticks = "`" * max([3, *(len(each) + 1 for each in _TICKS.findall(text))])
    return f"{ticks}{language}\n{text.strip()}\n{ticks}"
