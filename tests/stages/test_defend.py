import signal
from dataclasses import replace

import jax
import pytest
import small
import tiny

from immunax.data.dialog import Split, ask
from immunax.defenses.safety_tuning import SafetyTuning
from immunax.inner.optimizers import AdamW
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.outer.defense import Mixture
from immunax.outer.feed import feed
from immunax.outer.training import Training, outer_step
from immunax.runtime import goodput
from immunax.runtime.mesh import MeshSpec, build, shard
from immunax.runtime.metrics import Metrics, read
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
            outcome = defend(MODEL, params, defense, training, feeder, devices, metrics, tmp_path / "checkpoints")
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
