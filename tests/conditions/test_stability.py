import numpy as np
import pytest
from certified import POLICY, measured, state, tables

from immunax.conditions.stability import stability

N = 40
STATES = [state("s", "subject", "none"), state("r", "reference", "none")]


def found(claim, *records, states=STATES):
    return {each.claim: each for each in stability(*tables(states, *records), POLICY)}[claim]


def test_perplexity_is_compared_in_pairs_as_a_ratio():
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 9, N)
    same = found(
        "retain perplexity", measured("s", 0, "retain_nll", base + 0.3, 10), measured("r", 0, "retain_nll", base, 10)
    )
    # Every example is worse by 0.03 nats a token, whatever the examples are: the interval has no width.
    assert (same.low, same.value, same.high) == tuple([pytest.approx(np.exp(0.03))] * 3)
    assert same.outcome == "holds"
    worse = found(
        "retain perplexity", measured("s", 0, "retain_nll", base + 3, 10), measured("r", 0, "retain_nll", base, 10)
    )
    assert worse.outcome == "fails"


def test_lost_accuracy_is_not_excluded_by_few_items_that_agree():
    right = [1.0] * N
    agreed = found("choice accuracy", measured("s", 0, "choice", right), measured("r", 0, "choice", right))
    assert agreed.value == 0
    # 40 items without a difference still allow that one in ten differs.
    assert agreed.high == pytest.approx(1 - (0.05 / 4) ** (1 / N))
    assert agreed.outcome == "inconclusive"
    lost = found("choice accuracy", measured("s", 0, "choice", [0.0] * N), measured("r", 0, "choice", right))
    assert (lost.value, lost.outcome) == (1.0, "fails")


def test_over_refusal_counts_refusals_that_the_reference_does_not_make():
    timid = found(
        "over-refusal", measured("s", 0, "over_refusal", [1.0] * N), measured("r", 0, "over_refusal", [0.0] * N)
    )
    bold = found(
        "over-refusal", measured("s", 0, "over_refusal", [0.0] * N), measured("r", 0, "over_refusal", [1.0] * N)
    )
    assert (timid.value, timid.outcome) == (1.0, "fails")
    assert (bold.value, bold.outcome) == (-1.0, "holds")


def test_without_a_reference_or_with_few_examples_nothing_is_decided():
    alone = found("exact answers", measured("s", 0, "exact", [1.0] * N), states=STATES[:1])
    assert (alone.outcome, alone.value) == ("inconclusive", None)
    few = found("exact answers", measured("s", 0, "exact", [1.0] * 5), measured("r", 0, "exact", [1.0] * 5))
    assert few.reason == "5 examples were measured on both models; it takes 24."
