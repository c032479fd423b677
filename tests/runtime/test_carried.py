import pytest

from immunax.runtime import carried, mirror
from immunax.runtime.errors import UserError


@pytest.mark.parametrize(
    ("outputs", "processes", "refused"),
    [("s3://b/runs", 2, True), ("s3://b/runs", 1, False), ("gs://b/runs", 2, False), ("outputs", 2, False)],
)
def test_several_processes_have_no_checkpoints_that_are_sent_as_a_whole(monkeypatch, outputs, processes, refused):
    monkeypatch.setattr(carried.together, "processes", lambda: processes)
    folder = mirror.local(outputs) / "one" / "checkpoints"
    if not refused:
        carried.check_place(folder)
        return
    with pytest.raises(UserError, match=r"s3://b/runs/one/checkpoints: checkpoints of several processes go to gs://"):
        carried.check_place(folder)
