import buckets
import jax.numpy as jnp
import numpy as np
import pytest

from immunax.runtime import atomic, bucket, lease, mirror
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.errors import RefusedError, UserError


@pytest.fixture(scope="module", params=["gs", "s3"])
def place(request, bucket_server):
    if request.param == "gs":
        yield buckets.made(bucket_server)
        return
    with buckets.amazon() as address:
        yield address


@pytest.fixture
def folder(place, tmp_path, monkeypatch, request):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "one"))
    return mirror.local(f"{place}/{request.node.name.partition('[')[0]}")


def another_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))


def state(step):
    return {"weights": jnp.arange(6.0) + step, "step": step}


def saved(folder, *steps, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step))


def test_another_machine_goes_on_from_the_newest_and_of_old_ones_none_is_left(folder, tmp_path, monkeypatch):
    address = mirror.named(folder)
    saved(folder, 1, 2, 3, keep_last=2)
    another_machine(monkeypatch, tmp_path)
    with Checkpoints(mirror.local(address), keep_last=2) as checkpoints:
        assert checkpoints.steps() == [2, 3]
        step, found = checkpoints.restore_newest(state(0))
        checkpoints.save(4, state(4))
    assert step == 3
    np.testing.assert_array_equal(found["weights"], state(3)["weights"])
    assert {name.partition("/")[0] for name in bucket.below(address)} == {"3", "4"}


def test_one_whose_marker_is_missing_counts_for_nothing_and_a_damaged_one_is_passed_over(folder, tmp_path, monkeypatch):
    address = mirror.named(folder)
    saved(folder, 1, 2, 3, keep_last=3)
    marker = mirror.WHOLE if address.startswith("s3") else "commit_success.txt"
    bucket.remove(address, [f"3/{marker}"])
    largest = max((each.size, name) for name, each in bucket.below(address).items() if name.startswith("2/default/"))[1]
    bucket.put_bytes(b"damaged", f"{address}/{largest}")
    another_machine(monkeypatch, tmp_path)
    with Checkpoints(mirror.local(address), keep_last=3) as checkpoints:
        step, found = checkpoints.restore_newest(state(0))
    assert step == 1
    np.testing.assert_array_equal(found["weights"], state(1)["weights"])


def test_a_bucket_that_refuses_to_be_read_is_no_damage(folder, monkeypatch):
    saved(folder, 1)
    with Checkpoints(folder) as checkpoints:
        monkeypatch.setattr(bucket, "mistake_of", lambda *given: RefusedError("permission denied"))
        monkeypatch.setattr(checkpoints._handler, "restore", lambda *given, **named: 1 / 0)
        with pytest.raises(UserError, match="permission denied"):
            checkpoints.restore_newest(state(0))
        assert checkpoints.steps() == [1]


def test_files_folders_and_leases_are_the_same_in_either(folder):
    address = mirror.named(folder)
    bucket.check_writable(address)
    with atomic.file(folder / "file") as temp:
        temp.write_text("whole")
    assert bucket.read(f"{address}/file", 1, 3) == b"ho"
    with atomic.directory(folder / "model") as temp:
        (temp / "a").write_text("a")
    assert mirror.is_whole(folder / "model")
    assert bucket.below(address).keys() == {"file", "model/a", "model/.complete"}
    with lease.held(address) as ours:
        assert ours
        assert not bucket.create(b"", f"{address}/.lease")
    assert bucket.about(f"{address}/.lease") is None
    with pytest.raises(UserError, match="there is no bucket"):
        bucket.check_writable(f"{address[:5]}no-such-bucket/x")
