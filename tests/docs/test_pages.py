"""The pages name what there is: every page is in the navigation, every command a module, every choice a file of ``conf/``."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from immunax.runs.spec import read_spec
from immunax.runtime.configuration import configuration_folder
from immunax.runtime.overrides import ConfigSource, prepare

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
WRITTEN = [ROOT / "README.md", *PAGES, *sorted((ROOT / "tpu").glob("*.md"))]
GROUPS = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*") if path.is_dir()}
# A path, a hub id, a name to fill in: what stands for a choice of the reader's.
OPEN = re.compile(r"[A-Z]|[/.$\\]")


class Plain(yaml.SafeLoader):
    """YAML with its tags left out, as mkdocs.yml may have some."""


def hook(name: str):
    specification = importlib.util.spec_from_file_location(name, DOCS / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def in_navigation(part) -> list[str]:
    if isinstance(part, str):
        return [part]
    return [uri for each in (part.values() if isinstance(part, dict) else part) for uri in in_navigation(each)]


def code(page: Path) -> str:
    return "\n".join(re.findall(r"^```(?:sh|yaml|text)\n(.*?)^```$", page.read_text(), flags=re.M | re.S))


def chosen(text: str) -> set[tuple[str, str]]:
    """Every ``group=choice`` of the commands of a page, with the values of a sweep apart."""
    found = set()
    for line in re.findall(r"^.*python -m immunax.*$", text.replace("\\\n", " "), flags=re.M):
        for word in shlex.split(line, comments=True):
            name, _, value = word.lstrip("+").partition("=")
            if name.partition("@")[0] in GROUPS:
                found |= {(name.partition("@")[0], each) for each in value.split(",")}
    return {(group, choice) for group, choice in found if not OPEN.search(choice)}


def added() -> set[tuple[str, str]]:
    """The choices that pages make themselves; a sweep makes its experiment one."""
    paths = re.findall(r"^# conf/(\S+)\.yaml$", "".join(page.read_text() for page in PAGES), flags=re.M)
    found = {tuple(path.rsplit("/", 1)) for path in paths}
    return found | {tuple(group.split("/")[:2]) for group, _ in found if group.startswith("experiment/")}


def is_there(group: str, choice: str) -> bool:
    if group == "experiment":
        return any((ROOT / "conf" / group / choice).glob("*/*.yaml"))
    return choice == "null" or (ROOT / "conf" / group / f"{choice}.yaml").exists()


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    listed = in_navigation(yaml.load((ROOT / "mkdocs.yml").read_text(), Plain)["nav"])
    assert len(listed) == len(set(listed))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} <= set(listed)
    for uri in listed:
        assert (DOCS / uri).exists() or (ROOT / uri).exists(), uri


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_names_commands_and_choices_that_exist(page):
    text = code(page)
    for module in re.findall(r"python -m ((?:immunax|tpu|tests)(?:\.\w+)*)", text):
        path = ROOT.joinpath(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for group, choice in chosen(text) - added() - {("model", "model")}:
        assert is_there(group, choice), f"{group}={choice}"


@pytest.mark.parametrize(
    "line",
    [
        "python -m immunax.train +defense=rep_nose",
        "python -m immunax.train x=1 -m a@b=1 mesh=a,b",
        "python -m immunax.attack -m +experiment=qi2023",
    ],
)
def test_a_wrong_choice_would_be_seen(line):
    assert not all(is_there(*each) for each in chosen(line))


def test_every_command_is_on_the_page_of_commands():
    commands = {path.stem for path in (ROOT / "immunax").glob("*.py") if not path.stem.startswith("_")}
    assert commands == set(
        re.findall(r"^\| `immunax\.(\w+)` \|", (DOCS / "reference" / "commands.md").read_text(), flags=re.M)
    )


def test_the_reference_has_every_module_of_its_rooms_once():
    rendered = hook("rendered")
    for page in sorted((DOCS / "reference").glob("*.md")):
        text = page.read_text()
        for room in rendered.OTHERS.findall(text):
            listed = re.findall(rf"^::: immunax\.{room}\.(\w+)$", text, flags=re.M)
            rest = re.findall(
                rf"^::: immunax\.{room}\.(\w+)$", rendered.others(ROOT / "immunax" / room, text), flags=re.M
            )
            modules = {each.stem for each in (ROOT / "immunax" / room).glob("*.py") if each.stem != "__init__"}
            assert modules <= {*listed, *rest}
            assert len(listed) + len(rest) == len({*listed, *rest})


def test_every_choice_is_listed_with_what_its_file_says():
    rendered = hook("rendered")
    text = rendered.choices(ROOT / "conf")
    experiments = rendered.experiments(ROOT / "conf" / "experiment")
    for path in (ROOT / "conf").rglob("*/*.yaml"):
        if "experiment" not in path.parts:
            assert f"| `{path.stem}` |" in text, path
        elif len(path.relative_to(ROOT / "conf" / "experiment").parts) == 3:
            assert re.search(rf"\| `{path.parts[-3]}` \|.*`{path.parts[-2]}`: [\w, ]*\b{path.stem}\b", experiments), (
                path
            )
    assert rendered.comment("# @package _global_\n# One,\n# two.\na: 1 # three\n") == "One, two."


def test_the_gallery_shows_every_picture_with_the_question_of_its_experiment(tmp_path):
    outside = hook("outside")
    text = outside.gallery(ROOT / "experiments")
    for folder in (ROOT / "experiments").iterdir():
        for picture in folder.rglob("*.png"):
            # Once: without pixels where it has been drawn so too.
            shown = picture.with_suffix(".svg") if picture.with_suffix(".svg").exists() else picture
            assert f"](../{shown.relative_to(ROOT).as_posix()})" in text
            assert shown == picture or f"](../{picture.relative_to(ROOT).as_posix()})" not in text
        if (folder / "README.md").exists():
            assert f"[{outside.heading(folder / 'README.md')}](../experiments/{folder.name}/README.md)" in text


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script src="https://a.b/c.js"></script>', ["https://a.b/c.js"]),
        ("<link rel=stylesheet href=//fonts.a/css>", ["//fonts.a/css"]),
        ('<a href="https://arxiv.org/abs/1">paper</a><img src="figure.png">', []),
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_seen(html, found):
    assert hook("offline").asked(html) == found


def test_a_notebook_is_a_page_with_its_outputs():
    book = new_notebook(
        cells=[
            new_markdown_cell("# A walk\n\nText."),
            new_code_cell("print(1)", outputs=[new_output("stream", text="```\n1\n")]),
            new_markdown_cell("## A picture"),
            new_code_cell(
                "draw()", outputs=[new_output("display_data", data={"image/png": "AAAA", "text/plain": "<F>"})]
            ),
        ]
    )
    text, pictures = hook("notebooks").rendered(book, "walk")
    assert text.startswith(
        "# A walk\n\nText.\n\n```python\nprint(1)\n```\n\n````{ .text .output }\n```\n1\n````\n\n## A picture\n"
    )
    assert text.endswith("```python\ndraw()\n```\n\n![A picture](walk/1.png){ .output }\n")
    assert pictures == {"1.png": b"\0\0\0"}


def test_the_experiment_of_the_page_on_figures_composes_and_its_figure_is_read(tmp_path):
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "figures.md").read_text(), flags=re.M | re.S)
    for block in blocks:
        path = tmp_path / re.search(r"^# (conf/\S+)$", block, flags=re.M)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    source = ConfigSource(configuration_folder(), "attack", tmp_path / "conf", {"model": ("hf", "path")})
    found = prepare(source, ["+experiment=rates"], ("attack",))
    assert found.varied == {"attack", "attack.tuning.optimizer.learning_rate", "seed"}
    [panel] = read_spec(tmp_path / "conf/experiment/rates/figure.yaml").panels
    assert panel.options.y == "after.hazard_exactness"
