"""Which implementation a model is computed with, and what is refused."""

import jax
import pytest

from immunax.models.config import DecoderConfig
from immunax.models.kernels import choice
from immunax.runtime.errors import UserError
from immunax.stages.setup import Compute

SHAPE = {"vocab_size": 32, "d_model": 16, "d_ff": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1}


def config(**changes):
    whole = {"family": "llama", **SHAPE, "head_dim": 64, "max_positions": 512, **changes}
    return DecoderConfig(**whole)


@pytest.mark.parametrize(
    ("platform", "changes", "compute", "expected"),
    [
        ("cpu", {}, {}, "blocks"),
        ("gpu", {}, {}, "cudnn"),
        ("gpu", {}, {"dtype": "float32"}, "xla"),
        ("gpu", {"head_dim": 60}, {}, "xla"),
        ("gpu", {"head_dim": 256}, {}, "xla"),
        ("gpu", {"family": "gemma2", "attention_cap": 50.0}, {}, "xla"),
        ("tpu", {}, {}, "splash"),
        ("tpu", {"max_positions": 96}, {}, "xla"),
        ("rocm", {}, {}, "xla"),
        ("gpu", {}, {"attention": "blocks"}, "blocks"),
    ],
)
def test_each_platform_gets_the_fastest_that_computes_the_model(platform, changes, compute, expected):
    assert Compute(**compute).model(config(**changes), platform).attention == expected


@pytest.mark.parametrize(
    ("platform", "compute", "told"),
    [
        ("cpu", {"attention": "flash"}, "compute.attention='flash': expected one of auto, blocks, xla, cudnn, splash"),
        (
            "cpu",
            {"attention": "cudnn"},
            "compute.attention=cudnn: it is for NVIDIA's GPUs, and this is a cpu; use auto",
        ),
        ("gpu", {"attention": "splash"}, "compute.attention=splash: it is for TPUs, and this is a gpu; use auto"),
        ("gpu", {"attention": "cudnn", "dtype": "float32"}, "it computes in bfloat16, and compute.dtype is float32"),
        ("cpu", {"chunk": 0}, "compute.chunk=0: expected auto, or a whole number of 1 or more"),
        ("cpu", {"chunk": "many"}, "compute.chunk='many': expected auto, or a whole number of 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(platform, compute, told):
    with pytest.raises(UserError, match=told.replace("(", r"\(")) as caught:
        Compute(**compute).model(config(), platform)
    assert "\n" not in str(caught.value)


def test_rematerialisation_and_chunk_go_by_the_platform_and_by_name():
    chosen = {each: Compute().model(config(), each) for each in ("cpu", "gpu", "tpu")}
    assert [each.remat for each in chosen.values()] == ["dots", "dots", "full"]
    assert [each.chunk for each in chosen.values()] == [256, 2048, 256]
    named = Compute(remat="none", chunk=64).model(config(), "gpu")
    assert (named.remat, named.chunk) == ("none", 64)


def test_this_process_names_its_platform():
    assert choice.platform() == jax.default_backend()
