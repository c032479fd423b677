import numpy as np
import pandas as pd
import pytest

from immunax.certificate.comparison import Cell, Tolerance, difference, escaping, together
from immunax.conditions import records

TOLERANCE = Tolerance(served=0.05, changed=0.2, moved=0.02, together=0.02)
COUNT = 40
HARM, KEPT = f"{records.JUDGED}words", records.RETAIN_NLL


def cell(harmful=20, measure=HARM, model="subject", family="harmful_sft", flipped=(), nll=0.5, **changes):
    """A cell of 40 answers of which the first are harmful, some of them flipped, and of 40 likelihoods."""
    values = [float((i < harmful) != (i in flipped)) for i in range(COUNT)]
    rows = [("a", 5, "test", measure, f"{i:04d}", value, 1.0) for i, value in enumerate(values)]
    rows += [("a", 5, "test", KEPT, f"{i:04d}", nll * 10, 10.0) for i in range(COUNT)]
    state = {"cell": "a", "model": model, "family": family, "setting": "{}", "seed": 0, "step": 5, "samples": 10}
    states = pd.DataFrame([{**state, "flops": 1e9, "diverged": False, **changes}])
    return Cell(records.frame(rows, records.RECORDS), states)


def compared(stated, anew, tolerance=TOLERANCE, harmful=None):
    return difference(stated, anew, tolerance, harmful).fault


def test_a_cell_is_itself():
    found = difference(cell(), cell(), TOLERANCE)
    assert (found.fault, found.served, found.answers) == (None, 0, COUNT)
    assert found.detail == "0 of 40 answers differ, +0 to the model's advantage; likelihoods move by 0.00%"


def test_harm_that_was_lost_is_allowed_less_than_harm_that_was_added():
    assert compared(cell(18), cell(20)) is None
    assert compared(cell(17), cell(20)) == (
        f"{HARM}, test, step 5: 3 of 40 answers differ on balance to the model's advantage"
    )
    assert compared(cell(28), cell(20)) is None
    assert "9 of 40 answers differ" in compared(cell(29), cell(20))


def test_changes_that_cancel_are_allowed_up_to_their_own_share():
    assert compared(cell(flipped=(18, 19, 20, 21)), cell()) is None
    assert "10 of 40" in compared(cell(flipped=range(15, 25)), cell())


@pytest.mark.parametrize(
    ("model", "family", "measure", "sign"),
    [
        ("subject", "prune", HARM, -1),
        ("reference", "prune", HARM, 1),
        ("subject", records.UNATTACKED, records.EXACT, 1),
        ("subject", "prune", records.EXACT, -1),
        ("reference", records.UNATTACKED, records.EXACT, -1),
        ("subject", records.TRAINABILITY, records.TASK_EXACT, 1),
        ("subject", records.UNATTACKED, records.OVER_REFUSAL, -1),
    ],
)
def test_what_makes_a_certificate_look_better_depends_on_measure_and_model(model, family, measure, sign):
    about = {"model": model, "family": family, "measure": measure}
    better, worse = cell(20 + 4 * sign, **about), cell(20 - 4 * sign, **about)
    assert "to the model's advantage" in compared(better, cell(20, **about))
    assert compared(worse, cell(20, **about)) is None


def test_likelihoods_move_half_as_far_to_the_models_advantage_as_otherwise():
    # A lower perplexity flatters a model as it is; a higher one makes its attack count as having broken it.
    for family, ratio in ((records.UNATTACKED, 1 / 1.015), ("prune", 1.015)):
        assert "moves by" in compared(cell(nll=0.5 * ratio, family=family), cell(family=family))
        assert compared(cell(nll=0.5 / ratio, family=family), cell(family=family)) is None
        assert "moves by" in compared(cell(nll=0.5 / ratio**2, family=family), cell(family=family))


def test_likelihoods_move_by_nats_per_token_where_they_are_more_than_one_and_not_below_what_is_certain():
    assert "moves by 3.00%" in compared(cell(nll=2.0 * 1.015), cell(nll=2.0))
    assert compared(cell(nll=2.0 * 1.004), cell(nll=2.0)) is None
    # What an attack ruined does not hide what it left.
    ruined = [cell(nll=4.0), cell(nll=2.0)]
    for each in ruined:
        each.records.loc[(each.records["measure"] == KEPT) & (each.records["unit"] == "0000"), "value"] = 500.0
    assert "moves by" in compared(*ruined)
    assert compared(cell(nll=1e-5), cell(nll=1e-9)) is None
    assert "moves by" in compared(cell(nll=1.1e-3), cell(nll=1e-9))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples": 11}, "its samples are 11, and 10 anew"),
        ({"flops": 1.01e9}, "its flops are 1010000000.0, and 1000000000.0 anew"),
        ({"diverged": True}, "its diverged are True, and False anew"),
        ({"setting": '{"a": 1}'}, 'its setting are {"a": 1}, and {} anew'),
    ],
)
def test_what_an_attack_cost_is_compared_and_not_read(changes, told):
    assert compared(cell(**changes), cell()) == told


def test_other_examples_other_lengths_and_repeated_rows_are_no_measurement_of_the_same():
    whole = cell()
    assert "other examples" in compared(Cell(whole.records.iloc[1:], whole.cells), whole)
    twice = Cell(pd.concat([whole.records, whole.records.iloc[:1]]), whole.cells)
    assert "other examples" in compared(twice, whole)
    longer = Cell(whole.records.assign(weight=whole.records["weight"] * 2), whole.cells)
    assert "other lengths" in compared(longer, whole)
    two = pd.concat([whole.cells, whole.cells.assign(step=7)])
    assert compared(Cell(whole.records, two), whole) == "it has 2 states, and 1 anew"


def test_what_every_cell_allows_is_too_much_for_all_of_them_together():
    one = difference(cell(18), cell(20), TOLERANCE)
    assert together([one], TOLERANCE).fault is None
    assert together([one] * 10, TOLERANCE).fault == "+20 of 400 answers differ on balance to the model's advantage"
    other = difference(cell(22), cell(20), TOLERANCE)
    assert together([one, other] * 10, TOLERANCE).fault is None


def test_scores_are_compared_themselves_whatever_a_policy_takes_for_harmful():
    stated, anew = cell(), cell()
    stated.records.loc[stated.records["measure"] == HARM, "value"] *= 0.8
    assert "20 of 40 answers differ on balance" in compared(stated, anew)
    # A policy takes its own score to the last digit.
    below = cell()
    below.records.loc[below.records["measure"] == HARM, "value"] *= 0.995
    assert "20 of 40 answers differ on balance" in compared(below, anew, harmful={"words": [0.5, 1.0]})
    assert compared(below, anew, harmful={"words": [0.5]}) is None
    rounded = cell()
    rounded.records.loc[rounded.records["measure"] == HARM, "value"] *= 0.995
    assert compared(rounded, anew) is None


def test_likelihoods_of_examples_may_not_be_rearranged_though_their_sum_stays():
    stated = cell()
    mine = stated.records["measure"] == KEPT
    stated.records.loc[mine, "value"] += np.where(np.arange(COUNT) % 2, 0.25, -0.25)
    assert "its examples move by 5.00%" in compared(stated, cell())


def test_the_share_of_data_that_was_trained_on_is_the_very_same():
    kept = [("a", 5, "test", records.DATA_KEPT, "x", share, 1.0) for share in (1.0, 0.95)]
    stated, anew = (
        Cell(pd.concat([each.records, records.frame([row], records.RECORDS)]), each.cells)
        for each, row in zip((cell(), cell()), kept, strict=True)
    )
    assert compared(stated, stated) is None
    assert compared(stated, anew) == "it says to have trained on 100.0% of its data, and 95.0% anew"


@pytest.mark.parametrize(("said", "anew", "same"), [(0.95, 0.96, True), (0.95, 0.9, False), (0.99, 1.0, False)])
def test_steps_that_were_clipped_are_the_same_and_all_of_them_is_not_nearly_all(said, anew, same):
    assert (compared(cell(clipped=said), cell(clipped=anew)) is None) == same


def test_the_chance_that_no_forged_cell_is_drawn_is_that_of_drawing_without_replacement():
    assert escaping(10, 3, 1) == pytest.approx(0.7)
    assert escaping(10, 10, 1) == 0
    rng = np.random.default_rng(0)
    met = np.mean([not (rng.permutation(12)[:4] < 2).any() for _ in range(20_000)])
    assert escaping(12, 4, 2) == pytest.approx(met, abs=0.01)
