import jax
import pytest

from immunax.pod.chips import CHIPS
from immunax.runtime import peaks
from immunax.runtime.peaks import of_kind, peak


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA B200", 2250),
        ("AMD Instinct MI300X", 1307.4),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_a_card_is_known_by_the_name_that_it_gives_itself(kind, tera):
    assert of_kind(kind, "bfloat16", False) == of_kind(kind, "float16", False) == tera * 1e12
    assert 0 < of_kind(kind, "float32", True) < tera * 1e12
    # What an accelerator makes of float32 by default has fewer bits, and another peak.
    assert of_kind(kind, "float32", False) is None


@pytest.mark.parametrize(
    "kind", ["cpu", "NVIDIA H200 MIG 3g.71gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H800", ""]
)
def test_of_another_device_and_of_a_slice_of_a_card_no_peak_is_known(kind):
    assert of_kind(kind, "bfloat16", False) is None


def test_an_exact_product_is_six_passes_of_a_tpu():
    assert of_kind("TPU v6e", "float32", True) * 6 == pytest.approx(of_kind("TPU v6e", "bfloat16", True))


def test_a_roofline_and_a_utilisation_have_the_same_peak():
    kinds = {"v5e": "TPU v5e", "v5p": "TPU v5p", "v6e": "TPU v6e"}
    assert {name: chip.flops for name, chip in CHIPS.items()} == {
        name: of_kind(kind, "bfloat16", False) for name, kind in kinds.items()
    }


def test_the_peak_that_a_user_gives_is_of_the_dtype_of_his_computation_alone():
    assert jax.local_devices()[0].platform == "cpu"
    try:
        peaks.give("bfloat16", 5e12)
        assert (peak("bfloat16"), peak("float32")) == (5e12, None)
        peaks.give("float32", None)
        assert peak("bfloat16") is None
    finally:
        peaks.give("float32", None)
