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
from immunax.runtime.mesh import MeshSpec, build, shard
from immunax.runtime.metrics import Metrics
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
    for feeder in (_Stopping(data), data):
        # The second run goes on from the checkpoint of the first one.
        with Metrics(tmp_path) as metrics:
            outcome = defend(MODEL, params, defense, training, feeder, devices, metrics, tmp_path / "checkpoints")
        assert outcome.stopped == (None if feeder is data else 143)
    assert outer_step._cache_size() == known + 1
