from dataclasses import dataclass, replace

import jax
import pytest
import streams

from immunax.defenses.booster import Booster
from immunax.defenses.circuit_breakers import CircuitBreakers
from immunax.defenses.rep_noise import RepNoise
from immunax.defenses.sophon import Sophon
from immunax.inner.optimizers import Sgd
from immunax.models.lora import LoraSpec
from immunax.outer.attacker import Attacker
from immunax.outer.attacker_population import AttackerKind, AttackerPopulation
from immunax.outer.defense import Defense, Mixture
from immunax.outer.exposure import trained_against


@dataclass(frozen=True)
class Least(Defense):
    mixture: Mixture = Mixture(safe=1)

    def loss(self, model, params, state, batch, key):
        return params["norm"]["scale"].sum(), {}


def test_a_defense_of_a_mixture_and_a_loss_carries_nothing_simulates_nobody_and_stays_as_it_is():
    least = Least()
    assert least.init(streams.MODEL, streams.WEIGHTS, streams.BATCH, streams.KEY) == ()
    assert (least.attacker, least.against, least.evolves) == (None, (), False)
    assert CircuitBreakers().evolves
    with pytest.raises(TypeError, match="abstract"):
        type("None", (Defense,), {})()


def test_what_a_defense_trained_against_is_what_it_names_and_whom_it_simulates():
    adapters = LoraSpec(2)
    kinds = AttackerPopulation({"a": AttackerKind(Sgd(), (0.1, 0.2)), "b": AttackerKind(Sgd(), (0.1, 0.2), adapters)})
    assert trained_against(RepNoise()) == ()
    assert trained_against(Booster()) == ("harmful_sft",)
    assert trained_against(Sophon()) == ("harmful_sft",)
    assert trained_against(Sophon(Attacker(lora=adapters))) == ("harmful_sft_lora",)
    assert trained_against(replace(Sophon(), attacker=kinds)) == ("harmful_sft", "harmful_sft_lora")
    assert isinstance(hash(replace(Sophon(), attacker=kinds)), int)
    assert jax.tree.leaves(Attacker().empty_pool(None)) == []
