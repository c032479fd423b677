import pytest

from immunax.models import same_files
from immunax.runtime.errors import UserError


@pytest.fixture
def files(tmp_path):
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 4096)
    (tmp_path / "small").write_text("{}")
    return tmp_path


def gathering(monkeypatch, *others):
    """Two processes, of which the other one has found something else."""
    monkeypatch.setattr(same_files.together, "processes", lambda: 2)
    monkeypatch.setattr(same_files.together, "agreed", lambda make: make())
    monkeypatch.setattr(same_files.together, "gathered", lambda own: [own, *({**own, **other} for other in others)])


def test_files_are_read_whole_by_one_process_and_looked_at_by_the_others(files, monkeypatch):
    gathering(monkeypatch, {})
    assert same_files.digested(files, lambda: ["weights", "small", "absent"], lambda: {"weights": "x"}) == {
        "weights": "x"
    }


@pytest.mark.parametrize("other", [None, "another"])
def test_a_process_that_has_another_copy_is_named_with_the_file(files, monkeypatch, other):
    gathering(monkeypatch, {"weights": other})
    with pytest.raises(UserError, match=r"weights of process 1 is not that of process 0"):
        same_files.digested(files, lambda: ["weights", "small"], dict)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_another_copy_looks_otherwise(files, place):
    before = same_files.look(files / "weights")
    content = bytearray((files / "weights").read_bytes())
    assert same_files.look(files / "weights") == before
    content[place] ^= 1
    (files / "weights").write_bytes(content)
    assert same_files.look(files / "weights") != before
    (files / "weights").write_bytes(content[:-1])
    assert same_files.look(files / "weights") != before
