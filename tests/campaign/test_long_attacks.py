from dataclasses import replace

import jax
import pytest
import small

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.campaign import member_batches
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.pod.abstract_population import abstract_population, planned, stretch_inputs, trace_stretch
from immunax.runtime.mesh import MeshSpec, build

MODEL = Model(replace(small.CONFIG, n_layers=2), remat="dots")


def _compiled(steps, lora):
    """The program that takes an attack's steps, from shapes, and the bytes of its state."""
    tuning = Tuning(batch_size=2, max_steps=steps, lora=lora, max_length=16)
    (part,), devices = planned([HarmfulSFT(4, tuning)], 1), build(MeshSpec(), jax.devices()[:1])
    population = abstract_population(part, MODEL, devices, 1)
    inputs = stretch_inputs(population, MODEL, devices)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(inputs[0]))
    return trace_stretch(population, MODEL, devices, inputs).lower().compile().memory_analysis(), held


@pytest.mark.parametrize("lora", [None, LoraSpec(2)])
def test_an_attack_of_a_thousand_steps_takes_the_memory_of_one_of_sixteen_and_its_state_lies_there_once(
    monkeypatch, lora
):
    monkeypatch.setattr(member_batches, "PIECE_BYTES", 1 << 14)
    (short, held), (long, long_held) = (_compiled(steps, lora) for steps in (16, 1000))
    assert short.alias_size_in_bytes == held
    assert long.alias_size_in_bytes == long_held
    assert long.temp_size_in_bytes <= 1.01 * short.temp_size_in_bytes
    # Learning rates, losses and norms of a step are three numbers.
    grown = long.argument_size_in_bytes - short.argument_size_in_bytes
    assert 0 < grown <= 3 * 4 * 1024
