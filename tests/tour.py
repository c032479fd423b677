"""Executes ``docs/tour.ipynb``; as a program, ``python tests/tour.py``, writes what came out into it."""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

PATH = Path(__file__).parent.parent / "docs" / "tour.ipynb"
_SECONDS = 1200


def read() -> NotebookNode:
    """The notebook as it is committed."""
    return nbformat.read(PATH, as_version=4)


def executed(book: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook run in a folder, with what its readers need of the outputs; raises what a cell raises."""
    NotebookClient(book, timeout=_SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.metadata = {}
            cell.outputs = [output for output in cell.outputs if _stays(output)]
    book.metadata["language_info"] = {"name": "python"}
    return book


def _stays(output: NotebookNode) -> bool:
    # Progress is over, and warnings are of the machine that it ran on.
    if output.output_type == "stream":
        return output.name == "stdout"
    return output.output_type == "execute_result" or "image/png" in output.get("data", {})


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    nbformat.write(executed(read(), Path.cwd()), PATH)
