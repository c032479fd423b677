import json

import pytest

from immunax.runtime.errors import DivergedError, UserError
from immunax.runtime.failure import FILE, recorded


@pytest.mark.parametrize(
    ("error", "line", "diverged"),
    [
        (UserError("no such file; check the path"), "no such file; check the path", False),
        (DivergedError("the loss is nan; lower the rate"), "the loss is nan; lower the rate", True),
        (KeyError("a\nb"), "KeyError: ", False),
    ],
)
def test_a_run_that_fails_leaves_its_line_and_one_that_is_started_again_takes_it_away(tmp_path, error, line, diverged):
    with pytest.raises(type(error)), recorded(tmp_path):
        raise error
    left = json.loads((tmp_path / FILE).read_text())
    assert left["line"].startswith(line)
    assert left["diverged"] == diverged
    with recorded(tmp_path):
        assert not (tmp_path / FILE).exists()
    assert not list(tmp_path.iterdir())


def test_a_signal_is_no_failure_and_a_disk_that_refuses_hides_nothing(tmp_path):
    with pytest.raises(SystemExit), recorded(tmp_path):
        raise SystemExit(143)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(KeyError), recorded(tmp_path / "file" / "run"):
        raise KeyError("a")
