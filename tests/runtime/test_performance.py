import resource
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from immunax.runtime import goodput, peaks, performance
from immunax.runtime.metrics import Metrics, read
from immunax.runtime.performance import Meter
from immunax.runtime.phase import Work

WORK = Work(2, 30, 40, 5e9, 6e9)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that go on when a test says so."""

    class Clock:
        now = 50.0

        def wait(self, seconds):
            self.now += seconds

    found = Clock()
    monkeypatch.setattr(performance, "time", SimpleNamespace(monotonic=lambda: found.now))
    return found


@pytest.fixture
def kept(tmp_path):
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        yield tmp_path


def compile_something():
    jax.jit(lambda x: jnp.sin(x) + 1)(jax.device_put(1.0)).block_until_ready()  # a new function each time


def test_outside_a_command_nothing_is_measured(tmp_path, capsys):
    meter = Meter("train", "step", 1, "float32")
    with meter.running():
        assert meter.done(lambda: pytest.fail("nobody asks for it")) == {}
    performance.end()
    assert not meter.is_read
    assert performance.summary(tmp_path) == {}
    assert capsys.readouterr().err == ""


def test_a_stretch_is_as_long_as_the_host_waited_and_counts_on_all_its_devices(kept, clock):
    peaks.give("float32", 1e9)
    try:
        meter = Meter("train", "step", 4, "float32")
        clock.wait(100)  # before it runs
        with meter.running():
            clock.wait(2)
            found = meter.done(lambda: WORK)
            clock.wait(3)
            assert meter.done(lambda: WORK)["tokens_per_second"] == 10.0
            clock.wait(1)  # of no stretch
        clock.wait(100)
    finally:
        peaks.give("float32", None)
    assert found["seconds"] == 2.0
    assert found["mfu"] == pytest.approx(5e9 / (2 * 4 * 1e9))
    train = performance.summary(kept)["train"]
    assert (train["steps"], train["seconds"], train["measured_seconds"], train["devices"]) == (4, 6.0, 5.0, 4.0)
    assert train["mfu"] == pytest.approx(1e10 / (5 * 4 * 1e9))
    assert train["tokens_per_second"] == 60 / 5


def test_what_is_compiled_is_counted_and_its_stretch_is_in_no_rate(kept, clock, monkeypatch):
    meter = Meter("attack", "step", 1, "float32")
    with meter.running():
        compile_something()  # ahead of time, in no stretch: the one behind it is the first of its program
    with meter.running():
        clock.wait(50)
        assert meter.done(lambda: WORK) == {}
        clock.wait(2)
        assert meter.done(lambda: WORK)["seconds"] == 2.0
        compile_something()
        jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
        clock.wait(50)
        assert meter.done(lambda: WORK) == {}
    attack = performance.summary(kept)["attack"]
    assert (attack["programs"], attack["cached_programs"]) == (2, 1)
    assert attack["compile_seconds"] > 0
    assert (attack["steps"], attack["measured_steps"], attack["measured_seconds"]) == (6, 2, 2.0)


def test_compiling_outside_of_a_phase_is_not_of_it(kept):
    meter = Meter("evaluate", "sequence", 1, "float32")
    compile_something()
    with meter.running():
        meter.done(lambda: WORK)
    compile_something()
    evaluate = performance.summary(kept)["evaluate"]
    assert (evaluate["programs"], evaluate["compile_seconds"], evaluate["warm"]) == (0, 0, True)


class _Device:
    def __init__(self, peak):
        self.peak = peak

    def memory_stats(self):
        return None if self.peak is None else {"peak_bytes_in_use": self.peak, "bytes_in_use": 1}


def test_the_peak_of_the_fullest_device_of_any_process_is_told(kept, monkeypatch, capsys):
    monkeypatch.setattr(performance.jax, "local_devices", lambda: [_Device(3 * 2**30), _Device(5 * 2**30)])
    monkeypatch.setattr(performance, "gathered", lambda own: [own, (7 * 2**30, 11)])
    monkeypatch.setattr(performance, "peak", lambda dtype: None)
    meter = Meter("train", "step", 4, "float32")
    with meter.running():
        meter.done(lambda: WORK)
    performance.end("of it")
    train = performance.summary(kept)["train"]
    assert train["device_memory_peak"] == 7 * 2**30
    assert train["host_memory_peak"] == 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "train of it: 2 steps in" in (err := capsys.readouterr().err)
    assert "at most 7 GiB of a device until now" in err


def test_a_cpu_has_no_device_memory_to_tell_of_and_the_process_has(kept, capsys):
    meter = Meter("train", "step", 1, "float32")
    with meter.running():
        meter.done(lambda: WORK)
    performance.end()
    train = performance.summary(kept)["train"]
    assert train["device_memory_peak"] is None
    assert train["host_memory_peak"] > 2**25
    assert train["mfu"] is None
    assert "in memory until now" in capsys.readouterr().err


def test_a_phase_that_goes_on_after_its_end_has_a_line_of_each_part_and_one_sum(kept, clock, capsys):
    for name in ("start", "immunized"):
        meter = Meter("attack", "step", 1, "float32")
        with meter.running():
            clock.wait(2)
            meter.done(lambda: WORK)
        performance.end(name)
    performance.end("of nothing")
    lines = [line.partition(" in ")[0] for line in capsys.readouterr().err.splitlines() if "steps" in line]
    assert lines == ["attack start: 2 steps", "attack immunized: 2 steps"]
    assert performance.summary(kept)["attack"]["steps"] == 4


def test_the_end_of_a_phase_is_one_line_of_metrics_however_often_it_is_logged(kept, clock):
    meter = Meter("search", "step", 1, "float32")
    with meter.running():
        clock.wait(4)
        meter.done(lambda: WORK)
    with Metrics(kept) as metrics:
        for _ in range(2):
            performance.log(metrics, kept)
    [line] = read(kept / "metrics.jsonl")
    assert (line["phase"], line["step"]) == ("performance/search", 2)
    assert line["values"]["tokens_per_second"] == 7.5
    assert "mfu" not in line["values"]
