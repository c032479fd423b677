import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import buckets
import pytest
from fsspec.registry import _registry

from immunax import results
from immunax.runtime import atomic, bucket, cache, digest, lease, mirror, stand_ins
from immunax.runtime.errors import RefusedError, UnreachableError, UserError
from immunax.runtime.escaped import escaped
from immunax.runtime.sweeps import outcome
from immunax.runtime.sweeps.failures import Failures


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes this process another machine, with a disk of its own."""

    def become(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    become("one")
    return become


@pytest.fixture
def place(bucket_server, machine):
    return f"{buckets.made(bucket_server)}/runs"


@pytest.mark.parametrize(
    ("text", "found"), [("gs://b/x", True), ("s3://b", True), ("a/b", False), ("gs.txt", False), ("C:/x", False)]
)
def test_an_address_is_told_from_a_path(text, found):
    assert bucket.is_address(text) is found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gs:/b/x", "expected gs://BUCKET/FOLDER"),
        ("gs://", "expected gs://BUCKET/FOLDER"),
        ("gs://b//x", "no empty name"),
        ("gs://b/../x", "no '..'"),
        ("GS://b/x", "expected gs://BUCKET/FOLDER"),
        ("az://b/x", "expected gs://, s3:// or a path"),
        ("gcs://b/x", "Did you mean 'gs'"),
    ],
)
def test_an_address_of_no_place_is_refused_in_one_line(text, said):
    with pytest.raises(UserError, match=said) as told:
        mirror.local(text)
    assert text in str(told.value)


def test_a_path_that_stands_for_an_address_is_told_as_the_address(machine):
    path = mirror.local("gs://b/runs/one/")
    assert stand_ins.address(path) == "gs://b/runs/one"
    assert stand_ins.address(path.parent.parent.parent) is None
    assert str(UserError(f"{path / 'x.json'} is gone")) == "gs://b/runs/one/x.json is gone"
    assert escaped(f"in {path}") == "in gs://b/runs/one"


def test_a_file_is_sent_when_it_is_whole_and_another_machine_reads_it(place, machine):
    file = mirror.local(f"{place}/one/manifest.json")
    with pytest.raises(RuntimeError), atomic.file(file) as temp:
        raise RuntimeError(temp.write_text("half"))
    assert bucket.below(place) == {}
    with atomic.file(file) as temp:
        temp.write_text("whole")
    machine("other")
    there = mirror.fetch(mirror.local(f"{place}/one"))
    assert (there / "manifest.json").read_text() == "whole"
    assert digest.of_file(there / "manifest.json") == digest.of_file(file)


def test_what_is_brought_is_what_is_there_and_nothing_that_was_there(place, machine):
    for name in ("kept", "changed", "gone", "large/weights"):
        bucket.put_bytes(b"before", f"{place}/{name}")
    folder = mirror.fetch(mirror.local(place), lambda name: not name.startswith("large/"))
    assert sorted(each.name for each in folder.iterdir()) == ["changed", "gone", "kept"]
    bucket.put_bytes(b"since!", f"{place}/changed")
    bucket.remove(place, ["gone"])
    (folder / "kept").write_text("edited here")
    mirror.fetch(folder)
    assert {each.name: each.read_text() for each in folder.iterdir() if each.is_file()} == {
        "kept": "before",
        "changed": "since!",
    }
    assert (folder / "large" / "weights").read_text() == "before"


def test_only_what_has_changed_is_sent(place, machine):
    bucket.put_bytes(b"1", f"{place}/still")
    folder = mirror.fetch(mirror.local(place))
    (folder / "grows").write_text("1")
    (folder / ".lock").write_text("")
    mirror.settle(folder)
    with (folder / "grows").open("a") as out:
        out.write("2")
    bucket.remove(place, ["still"])
    mirror.settle(folder)
    assert bucket.below(place).keys() == {"grows"}
    assert bucket.read(f"{place}/grows") == b"12"


def test_a_folder_is_whole_by_its_marker_and_torn_while_it_is_written(place, machine, monkeypatch):
    folder = mirror.local(f"{place}/model")

    def write(text):
        with atomic.directory(folder) as temp:
            (temp / "a").write_text(text)
            (temp / text).mkdir()
            (temp / text / "b").write_text(text)

    write("one")
    assert mirror.is_whole(folder)
    assert not folder.exists()
    assert digest.of_folder(folder).keys() == {"a", "one/b"}
    said = json.loads(bucket.read(f"{place}/model/.complete"))["files"]
    assert {name: each["sha256"] for name, each in said.items()} == digest.of_folder(folder)
    send = bucket.put

    def fail(file, address):
        if file.name == "b":
            raise UserError("no more")
        send(file, address)

    monkeypatch.setattr(bucket, "put", fail)
    with pytest.raises(UserError, match="no more"):
        write("two")
    assert not mirror.is_whole(folder)
    with pytest.raises(UserError, match="half written"):
        mirror.check_not_torn(folder)
    monkeypatch.undo()
    machine("one")
    write("two")
    mirror.check_not_torn(folder)
    assert digest.of_folder(folder).keys() == {"a", "two/b"}


def test_a_folder_that_is_no_export_is_not_replaced(place, machine):
    atomic.check_replaceable(mirror.local(f"{place}/model"), "config.json")
    bucket.put_bytes(b"", f"{place}/model/thesis.tex")
    with pytest.raises(UserError, match="no earlier export"):
        atomic.check_replaceable(mirror.local(f"{place}/model"), "config.json")


def test_a_lease_is_held_by_one_of_many_machines_and_lapses_where_it_is_not_renewed(place, machine):
    with lease.held(place) as ours:
        assert ours
        assert lease.is_held(place)
        machine("other")
        with lease.held(place, wait_seconds=0.2) as also:
            assert also  # nobody renewed it
        machine("one")
    assert not lease.is_held(place)


def test_a_lease_that_is_renewed_is_refused(place, machine, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 0.3)
    held, asked = threading.Event(), threading.Event()

    def hold():
        with lease.held(place):
            held.set()
            asked.wait()

    monkeypatch.setattr(lease, "_host", lambda: threading.current_thread().name)
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        with lease.held(place, wait_seconds=5) as ours:
            assert not ours
    finally:
        asked.set()
        thread.join()


def test_of_its_own_machine_a_process_takes_the_lease_of_one_that_is_gone_at_once(place, machine):
    bucket.put_bytes(lease._content("gone"), f"{place}/.lease")
    with lease.held(place, wait_seconds=1000) as ours:
        assert ours


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("Forbidden: b/x\nno access"), "permission denied"),
        (PermissionError("Access Denied"), "permission denied"),
        (FileNotFoundError("b/x"), "there is no bucket gs://b"),
        (ConnectionRefusedError("no"), "no connection"),
        (TimeoutError(), "no connection"),
        (RuntimeError("Anonymous caller does not have storage.objects.create access"), "gcloud auth"),
    ],
)
def test_what_a_client_raises_is_one_line(error, said):
    told = bucket.mistake_of("gs://b/x", error)
    assert said in str(told)
    assert "\n" not in str(told)


def test_a_bug_is_no_mistake_of_the_user():
    assert bucket.mistake_of("gs://b/x", KeyError("size")) is None


def test_what_one_machine_has_made_another_finds_in_the_cache_and_damage_is_made_again(place, machine, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", f"{place}/cache")
    made = []

    def number():
        return cache.get_or_make(
            "number",
            {"of": "test"},
            lambda: made.append(1) or len(made),
            lambda folder: int((folder / "n").read_text()),
            lambda value, folder: (folder / "n").write_text(str(value)) and None,
            [number],
        )

    assert number() == 1
    machine("other")
    assert number() == 1
    [name] = [name for name in bucket.below(f"{place}/cache") if name.endswith("/n")]
    bucket.put_bytes(b"7", f"{place}/cache/{name}")
    with pytest.warns(UserWarning, match="damaged"):
        assert number() == 2
    bucket.remove(f"{place}/cache", [f"{name[:-1]}{mirror.WHOLE}"])
    machine("third")
    assert number() == 3


def test_compiled_programs_are_kept_in_a_bucket_and_found_there(place, machine, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", f"{place}/cache")
    program = (
        "import jax, sys; from immunax.runtime import cache; cache.enable_compilation_cache();"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0);"
        "jax.monitoring.register_event_listener(lambda name, **_: print(name));"
        "jax.jit(lambda x: x * 3 + 1)(1.0)"
    )

    def hits():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.count("/jax/compilation_cache/cache_hits")

    assert hits() == 0
    assert bucket.below(f"{place}/cache/xla")
    assert hits() > 0


def test_a_cache_in_a_bucket_that_takes_nothing_is_read_all_the_same(place, machine, monkeypatch, capsys):
    monkeypatch.setenv("IMMUNAX_CACHE", f"{place}/cache")

    def refuse(*asked):
        raise RefusedError("permission denied")

    monkeypatch.setattr(bucket, "put_bytes", refuse)
    cache._said.clear()
    cache.enable_compilation_cache()
    assert "keeps nothing new" in capsys.readouterr().err
    cache.jax.config.update("jax_compilation_cache_dir", None)


def test_a_lease_that_another_one_has_taken_ends_the_process(place, machine, monkeypatch, capsys):
    monkeypatch.setattr(lease, "SECONDS", 0.03)
    ended = threading.Event()

    def end(status):
        ended.set()
        raise UserError("the process is gone")

    monkeypatch.setattr(lease.signals, "leave", end)
    with lease.held(place):
        bucket.put_bytes(lease._content("another"), f"{place}/.lease")
        assert ended.wait(10)
    assert bucket.about(f"{place}/.lease") is not None


def test_a_lease_that_cannot_be_read_for_a_moment_is_not_lost(place, machine, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 0.03)
    ended, read = threading.Event(), threading.Event()
    monkeypatch.setattr(lease.signals, "leave", lambda status: ended.set())
    own = bucket.read

    def refuse(address):
        read.set()
        raise UnreachableError("the network is away")

    with lease.held(place):
        monkeypatch.setattr(bucket, "read", refuse)
        assert read.wait(10)
        monkeypatch.setattr(bucket, "read", own)
    assert not ended.is_set()
    assert bucket.about(f"{place}/.lease") is None


def test_what_is_gone_between_the_listing_and_the_reading_is_not_there(place, machine, monkeypatch):
    folder = mirror.local(place)
    bucket.put_bytes(b"old", f"{place}/failure.json")
    mirror.fetch(folder)
    listed = {"failure.json": bucket.Object(3, "another")}
    monkeypatch.setattr(bucket, "below", lambda address: listed)
    bucket.remove(place, ["failure.json"])
    mirror.fetch(folder)
    assert not (folder / "failure.json").exists()


def test_a_download_is_left_alone_by_whoever_clears_up_meanwhile(place, machine, monkeypatch):
    folder = mirror.local(place)
    bucket.put_bytes(b"weights", f"{place}/model.safetensors")
    system = bucket._system(place)
    own, came = system.get_file, []

    def meanwhile(address, part, **named):
        own(address, part, **named)
        came.append(part)
        if len(came) == 1:
            mirror.fetch(folder)
            atomic._remove_abandoned.__wrapped__(folder)

    monkeypatch.setattr(system, "get_file", meanwhile)
    mirror.fetch(folder)
    assert len(came) == 2
    assert [each.name for each in folder.iterdir()] == ["model.safetensors"]


def test_a_reader_leaves_alone_what_a_run_of_its_machine_has_not_sent_yet(place, machine):
    bucket.put_bytes(json.dumps({"config": {"seed": 0}}).encode(), f"{place}/one/manifest.json")
    run = mirror.fetch(mirror.local(f"{place}/one"))
    (run / "metrics.jsonl").write_text("a line\n")
    mirror.settle(run)
    (run / "metrics.jsonl").write_text("a line\nand one more\n")
    (run / "goodput.json").write_text("{}")
    assert results.main([place]) == 0
    assert (run / "metrics.jsonl").read_text() == "a line\nand one more\n"
    assert (run / "goodput.json").exists()


def test_what_is_sent_apart_is_not_sent_with_the_rest_of_a_run(place, machine):
    run = mirror.local(f"{place}/one")
    for name in ("metrics.jsonl", "checkpoints/2.orbax-checkpoint-tmp/default/d", "checkpoints/1/default/d"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("")
    mirror.settle(run)
    assert bucket.below(f"{place}/one").keys() == {"metrics.jsonl"}


def test_a_library_that_is_not_installed_is_told_with_the_extra_that_has_it(monkeypatch, machine):
    bucket._opened.cache_clear()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # there where another test has opened one
    with pytest.raises(UserError, match=r"pip install 'immunax\[bucket\]'"):
        bucket.check_writable("s3://b/x")


def test_runs_in_a_bucket_are_found_without_what_they_have_made(place, machine, capsys):
    for run in ("one", "two"):
        record = {"config": {"seed": 0}, "ended": "2026-01-01T00:00:00+00:00"}
        bucket.put_bytes(json.dumps(record).encode(), f"{place}/sweep/{run}/manifest.json")
        bucket.put_bytes(b"weights", f"{place}/sweep/{run}/model/model.safetensors")
    assert results.main([place]) == 0
    shown = capsys.readouterr().out
    assert "sweep/one" in shown
    assert "sweep/two" in shown
    assert not (mirror.local(place) / "sweep" / "one" / "model").exists()
    assert results.main([f"{place}/none"]) == 2
    assert f"{place}/none: is not there" in capsys.readouterr().err


def test_a_job_that_failed_is_noted_in_a_bucket_and_told_at_the_end_of_the_sweep(place, machine, capsys):
    def sweep():
        with Failures.of(mirror.local(place)) as failures:
            assert failures.note(mirror.local(f"{place}/one"), "job one", 2)
            assert [each.folder for each in failures.found()] == [f"{place}/one"]
            assert len(bucket.below(place)) == 1

    with pytest.raises(SystemExit) as end:
        sweep()
    assert end.value.code == 2
    assert "job one" in capsys.readouterr().err
    assert bucket.below(place) == {}


def test_how_a_run_ended_and_what_its_inputs_were_is_known_on_another_machine(place, machine):
    bucket.put_bytes(b"1", f"{place}/data/rows.jsonl")
    config = {"outputs": f"{place}/runs", "data": f"{place}/data"}
    asked = outcome.Asked.of(config)
    outcome.ended(mirror.local(f"{place}/runs/one"), asked)
    machine("other")
    folder = mirror.fetch(mirror.local(f"{place}/runs/one"))
    assert outcome.known(folder, asked) is not None
    bucket.put_bytes(b"2", f"{place}/data/rows.jsonl")
    outcome._files.cache_clear()
    assert outcome.known(folder, outcome.Asked.of(config)) is None


def test_what_lies_in_a_bucket_is_removed_there_too():
    """Whoever removes by the disk's own means would leave the bucket's, which comes back with the next reading."""
    package = Path(results.__file__).parent
    means = re.compile(r"\.(unlink|rmdir|rmtree|rename)\(")
    here = {file.relative_to(package).as_posix() for file in package.rglob("*.py") if means.search(file.read_text())}
    assert here == {
        *(f"runtime/{name}.py" for name in ("atomic", "bucket", "carried", "mirror")),
        "certificate/signing.py",
    }
