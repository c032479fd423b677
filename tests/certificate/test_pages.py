import json
import os

import certified
import pytest

from immunax.certificate import pages
from immunax.certificate.report import html, model_card
from immunax.certificate.statement import canonical, own_digest
from immunax.certificate.verify import tables
from immunax.verify import main

PAGES = (html.FILE, model_card.FILE)


@pytest.fixture(scope="module")
def issued(tmp_path_factory):
    path = certified.with_pages(certified.certificate(tmp_path_factory.mktemp("issued")))
    return path.parent, json.loads(path.read_bytes()), *tables(path.parent)


@pytest.fixture
def drawn(issued, tmp_path, monkeypatch):
    """A folder of pages, and what the checks say of it; drawn once for all tests."""
    folder, stated, records, cells = issued
    made = {name: (folder / name).read_bytes() for name in PAGES}
    for name, page in made.items():
        (tmp_path / name).write_bytes(page)
    monkeypatch.setattr(pages, "drawn", lambda *_: made)
    return tmp_path, lambda: {each.name: each for each in pages.check(tmp_path, stated, records, cells)}


def test_pages_are_drawn_to_the_byte_from_statement_and_tables(issued):
    folder, stated, records, cells = issued
    for name, page in pages.drawn(stated, records.sample(frac=1, random_state=0), cells).items():
        assert page == (folder / name).read_bytes()


def test_the_command_tells_of_an_edited_page_and_fails(issued, capsys):
    folder = issued[0]
    raw = (folder / html.FILE).read_bytes()
    try:
        (folder / html.FILE).write_bytes(raw.replace(b"inconclusive", b"holds"))
        assert main([str(folder / "certificate.json")]) == 1
        assert "failed       page report.html: is not what the certificate says\n" in capsys.readouterr().out
    finally:
        (folder / html.FILE).write_bytes(raw)
    assert main([str(folder / "certificate.json")]) == 0
    assert "passed       page MODEL_CARD.md: as drawn anew\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "edit", [lambda raw: raw + b"\n", lambda raw: raw[:-1], lambda raw: b"", lambda raw: b"x" * 10**7]
)
def test_any_other_bytes_are_a_fault(drawn, name, edit):
    folder, found = drawn
    assert found()[f"page {name}"].result == "passed"
    (folder / name).write_bytes(edit((folder / name).read_bytes()))
    assert found()[f"page {name}"].result == "failed"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("put", [os.mkdir, os.mkfifo, lambda path: os.symlink("nowhere", path)])
def test_what_lies_in_the_place_of_a_page_is_a_fault(drawn, name, put):
    folder, found = drawn
    (folder / name).unlink()
    assert found()[f"page {name}"] == (f"page {name}", "not checked", "there is none")
    put(folder / name)
    assert found()[f"page {name}"].result == "failed"


def test_what_else_lies_there_is_told_in_letters_that_cannot_be_taken_for_others(drawn):
    folder, found = drawn
    assert found()["folder"] == ("folder", "passed", "it holds nothing else")
    for name in ("cells", ".hydra"):
        (folder / name).mkdir()
    for name in ("manifest.json", "certify.log", ".lock", "certificate.dsse.json", "model.sig"):
        (folder / name).touch()
    assert found()["folder"].result == "passed"
    # Its second letter is Cyrillic.
    for name in ("r\u0435port.html", "a\nb", *(f"z{number}" for number in range(9))):
        (folder / name).touch()
    detail = found()["folder"].detail
    assert detail.startswith("also there, and not of the certificate: a\\nb, r\\u0435port.html, z0")
    assert detail.endswith("z5 and 3 more")


@pytest.mark.parametrize("versions", [["x"], "x", {"python": 3}, {"python": ["3"]}])
def test_versions_that_a_page_has_no_place_for_are_one_failed_check(tmp_path, capsys, versions):
    path = certified.certificate(tmp_path)
    stated = json.loads(path.read_bytes())
    stated["predicate"]["environment"]["versions"] = versions
    stated["predicate"]["digest"]["sha256"] = own_digest(stated)
    path.write_bytes(canonical(stated))
    assert main([str(path)]) == 1
    assert "failed       schema: $.predicate.environment.versions" in capsys.readouterr().out
