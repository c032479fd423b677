import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.data.dialog import Split, ask
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.inner.optimizers import AdamW
from immunax.inner.trainable import AdapterBase
from immunax.models.lora import Adapted, LoraSpec, plain
from immunax.models.model import Model
from immunax.outer.defense import Mixture
from immunax.outer.feed import feed
from immunax.outer.training import Training, outer_step
from immunax.runtime import goodput, parked
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.mesh import MeshSpec, build, shard
from immunax.runtime.metrics import Metrics, read
from immunax.runtime.parked import Parked
from immunax.stages.defend import defend

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=1))
SPLIT = Split(safe=tuple(ask(f"how to {i}", "no") for i in range(8)))


class _Stopping:
    """A feed on whose second step the run is asked to stop."""

    def __init__(self, data):
        self.data, self.longest = data, data.longest

    def batch(self, step):
        if step == 1:
            signal.raise_signal(signal.SIGTERM)
        return self.data.batch(step)


EIGHT, ADAPTERS = MeshSpec(fsdp=4, tensor=2), LoraSpec(4, dropout=0.1)


@pytest.mark.parametrize(
    ("sizes", "lora"),
    [(MeshSpec(), None), (EIGHT, None), (EIGHT, ADAPTERS)],
    ids=["one device", "eight", "eight, adapters with dropout"],
)
def test_all_outer_steps_of_a_run_and_of_its_resumption_are_one_program(tmp_path, sizes, lora):
    devices, defense = build(sizes), SafetyTuning(Mixture(safe=4))
    training = Training(steps=3, optimizer=AdamW(1e-3), checkpoint_every=1, lora=lora)
    data = feed(tiny.tokenizer(), SPLIT, defense.mixture, training, 4)
    params = shard(jax.jit(MODEL.init)(jax.random.key(0)), devices)
    known = outer_step._cache_size()
    done = []
    for feeder in (_Stopping(data), data):
        # The second run goes on from the checkpoint of the first one.
        with Metrics(tmp_path) as metrics, goodput.kept(whole_process=False):
            goodput.record(tmp_path)
            outcome = defend(
                MODEL, Parked(params), defense, training, feeder, devices, metrics, tmp_path / "checkpoints"
            )
            done.append(goodput.phases(tmp_path)["train"])
        assert outcome.stopped == (None if feeder is data else 143)
    assert outer_step._cache_size() == known + 1
    # What is measured adds no program, and the accounts of both starts hold every step, on all devices.
    assert (done[0].steps, done[1].steps) == (2, 3)
    assert (done[0].cold.work.steps, done[0].warm.work.steps) == (1, 1)
    assert done[1].warm.device_seconds == pytest.approx(devices.size * done[1].warm.seconds)
    assert done[1].warm.plus(done[1].cold).work.tokens == sum(each.real for each in data.tokens.values())
    logged = [(line["phase"], line["step"]) for line in read(tmp_path / "metrics.jsonl")]
    assert [step for phase, step in logged if phase == "train"] == [1, 2, 3]
    assert {step for phase, step in logged if phase == "train/rate"} <= {2, 3}
    rated = [line["values"] for line in read(tmp_path / "metrics.jsonl") if line["phase"] == "train/rate"]
    assert all(each["tokens_per_second"] * each["seconds"] > 0 for each in rated)


@pytest.mark.parametrize("away", [False, True], ids=["there", "parked"])
def test_in_bfloat16_adapters_are_kept_and_merged_with_all_bits_of_the_weights_below(tmp_path, monkeypatch, away):
    monkeypatch.setattr(parked, "_may_park", lambda: away)
    devices, defense, model = build(MeshSpec(fsdp=2)), SafetyTuning(Mixture(safe=4)), replace(MODEL, dtype="bfloat16")
    training = Training(steps=3, optimizer=AdamW(1e-2), checkpoint_every=1, lora=LoraSpec(4))
    data = feed(tiny.tokenizer(), SPLIT, defense.mixture, training, 2)
    params = shard(jax.tree.map(lambda leaf: leaf * 1.0037, jax.jit(MODEL.init)(jax.random.key(0))), devices)
    masters, outcomes = jax.device_get(params), {}
    for name, feeders in {"whole": (data,), "resumed": (_Stopping(data), data)}.items():
        for feeder in feeders:
            start = Parked(jax.tree.map(lambda leaf: leaf + 0, params))
            with Metrics(tmp_path / name) as metrics:
                outcomes[name] = defend(
                    model, start, defense, training, feeder, devices, metrics, tmp_path / name / "checkpoints"
                )
    whole, resumed = (outcomes[name] for name in ("whole", "resumed"))
    jax.tree.map(np.testing.assert_array_equal, whole.params, resumed.params)
    with Checkpoints(tmp_path / "whole" / "checkpoints", read_only=True) as checkpoints:
        kept = checkpoints.restore_part(3, "train.held", AdapterBase(params, jax.numpy.float32(0)))
    jax.tree.map(np.testing.assert_array_equal, kept.base, masters)
    merged = plain(Adapted(masters, jax.device_get(whole.adapters), LoraSpec(4).scale))
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=0, atol=1e-7), whole.params, merged)
    kernel = masters["layers"]["mlp"]["up_proj"]["kernel"]
    assert np.abs(kernel.astype("bfloat16").astype(np.float32) - kernel).max() > 1e-5
