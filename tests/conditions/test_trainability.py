import numpy as np
import pytest
from certified import POLICY, measured, state, tables

from immunax.conditions.trainability import trainability

N = 30
LOSS = {"reference": {0: 3.0, 5: 2.0, 10: 1.0}, "subject": {0: 3.0, 5: 2.5, 10: 1.05}}


def found(loss, exact=None):
    states, records = [], []
    for model, course in loss.items():
        for step, value in course.items():
            for seed in (0, 1):
                states.append(state(f"{model}-{seed}", model, "trainability", step, seed))
                records.append(measured(f"{model}-{seed}", step, "task_nll", [10 * value] * N, 10))
                if exact:
                    records.append(measured(f"{model}-{seed}", step, "task_exact", [exact[model]] * N))
    return {each.claim: each for each in trainability(*tables(states, *records), POLICY)}


def test_final_loss_is_compared_after_all_steps_and_speed_after_the_references_half():
    both = found(LOSS)
    assert both["final loss"].value == pytest.approx(1.05)
    assert both["final loss"].outcome == "holds"
    assert both["speed"].value == pytest.approx(1.05 / 2.0)
    assert both["speed"].details["reference"] == {"0": 3.0, "5": 2.0, "10": 1.0}
    assert both["speed"].details["steps to the reference's final loss"] is None


def test_a_model_that_learns_too_slowly_fails():
    slow = found({**LOSS, "subject": {0: 3.0, 5: 2.8, 10: 2.5}})
    assert slow["final loss"].outcome == slow["speed"].outcome == "fails"


def test_the_final_score_is_compared_where_answers_are_right_or_wrong():
    assert found(LOSS, {"reference": 1.0, "subject": 0.0})["final score"].outcome == "fails"
    assert "final score" not in found(LOSS)


def test_without_the_reference_nothing_is_decided_and_without_the_task_nothing_is_said():
    assert found({"subject": LOSS["subject"]})["final loss"].outcome == "inconclusive"
    assert found({}) == {}


def test_a_model_as_fast_as_the_reference_says_when_it_reached_its_loss():
    same = found({**LOSS, "subject": LOSS["reference"]})["final loss"]
    assert same.details["steps to the reference's final loss"] == 10
    assert np.isclose(same.value, 1.0)
