"""Goals: the ratios that they are read off, and where they count."""

import pytest
from accelerated.catalogue import COMPILED, EAGER, IMMUNAX, PEAK
from accelerated.goals import GOALS, MET, MISSED, UNMEASURED
from accelerated.record import FAILED, Report, Row

H200 = {"immunax": {"device": "NVIDIA H200"}}
PEAK_ROW = Row(PEAK, IMMUNAX, seconds=(0.002, 0.001), units=1, flops=8e11)


def report(*rows, device=H200, tiny=False):
    return Report(tiny, facts=device, rows=(PEAK_ROW, *rows))


def goal(text):
    return next(each for each in GOALS if each.text == text)


def sides(case, ours, theirs, side=EAGER, **others):
    return Row(case, IMMUNAX, seconds=(ours,), units=100, **others), Row(case, side, seconds=(theirs,), units=100)


@pytest.mark.parametrize(("ours", "verdict"), [(0.9, MET), (1.1, MISSED)])
def test_a_step_is_held_against_the_other_side_at_the_median(ours, verdict):
    rows = (
        Row("full_8x512", IMMUNAX, seconds=(9.0, ours, 0.1), units=100),
        Row("full_8x512", EAGER, seconds=(1.35,), units=100),
    )
    assert goal("full 8×512: times torch eager").verdict(report(*rows)) == verdict
    assert goal("full 8×512: times torch.compile").verdict(report(*rows)) == UNMEASURED


def test_rates_are_compared_and_not_times():
    rows = (
        Row("scan_64", IMMUNAX, seconds=(6.4,), units=64, peak_bytes=100),
        Row("scan_1000", IMMUNAX, seconds=(100.0,), units=1000, peak_bytes=106),
    )
    assert goal("K = 1,000: steps/s, of K = 64's").found(report(*rows)) == pytest.approx(1.0)
    assert goal("K = 1,000: memory, times K = 64's").verdict(report(*rows)) == MISSED


def test_memory_is_to_be_at_most_so_much():
    ours, theirs = sides("lora_8x512", 1.0, 2.0, peak_bytes=110)
    text = "LoRA 8×512: memory, times eager peft's"
    for held, verdict in ((100, MET), (99, MISSED)):
        beside = Row("lora_8x512", EAGER, seconds=theirs.seconds, units=100, peak_bytes=held)
        assert goal(text).verdict(report(ours, beside)) == verdict
    assert goal(text).verdict(report(ours, theirs)) == UNMEASURED


@pytest.mark.parametrize(("flops", "verdict"), [(4.9e14, MET), (4.7e14, MISSED)])
def test_a_share_is_of_the_best_product_of_the_same_run(flops, verdict):
    row = Row("full_4x2048", IMMUNAX, seconds=(1.0,), units=8192, flops=flops)
    assert goal("full 4×2048: of the matrix peak").verdict(report(row)) == verdict


def test_goals_count_on_the_cards_that_they_are_for_alone_and_not_at_tiny_sizes():
    rows = sides("full_8x512", 1.0, 2.0, COMPILED)
    each = goal("full 8×512: times torch.compile")
    assert each.verdict(report(*rows)) == MET
    assert each.verdict(report(*rows, device={"immunax": {"device": "cpu"}})) == UNMEASURED
    assert each.verdict(report(*rows, tiny=True)) == UNMEASURED


def test_a_row_that_failed_is_not_measured():
    ours, _ = sides("full_8x512", 1.0, 2.0)
    failed = Row("full_8x512", EAGER, FAILED, "out of memory")
    assert goal("full 8×512: times torch eager").verdict(report(ours, failed)) == UNMEASURED
