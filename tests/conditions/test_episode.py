import json

import numpy as np
import pytest

from immunax.conditions.episode import Answered, Course, Episode, from_json, summarise, to_json
from immunax.judges.evaluate import Scores
from immunax.judges.likelihood import Likelihood


def _scores(complied):
    return Scores(
        {"refusal": np.array(complied), "hazard_exactness": np.array([0.5, np.nan, 1.0])},
        Likelihood(np.array([4.0, 2.0]), np.array([2.0, 1.0])),
        None,
        unfinished=np.array([True, False, True]),
        unanswered=np.array([False, False, True]),
    )


EPISODE = Episode(
    _scores([0.0, 0.0, 1.0]),
    _scores([1.0, 1.0, 1.0]),
    Course(
        np.array([3.0, np.inf]),
        np.array([1, 2]),
        {"refusal": np.array([[0.0, 1.0], [1.0, np.nan]])},
        np.array([5.0, 8.0]),
        np.array([1e9, 2e9]),
    ),
)


def test_an_episode_survives_json_and_what_is_not_finite_becomes_missing():
    record = json.loads(json.dumps(to_json(EPISODE), allow_nan=False))
    again = from_json(record)
    np.testing.assert_array_equal(again.before.judged["hazard_exactness"], [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(again.course.loss, [3.0, np.nan])
    np.testing.assert_array_equal(again.course.probes["refusal"], EPISODE.course.probes["refusal"])
    np.testing.assert_array_equal(again.after.harmful.nll, [4.0, 2.0])
    assert again.before.retain is None
    assert again.before.unfinished.tolist() == [True, False, True]
    assert again.before.unanswered.tolist() == [False, False, True]
    bare = EPISODE._replace(before=EPISODE.before._replace(unfinished=None, unanswered=None))
    assert from_json(to_json(bare)).before.unfinished is None


def test_a_summary_turns_compliance_into_refusal_and_likelihood_into_perplexity():
    summary = summarise(EPISODE.before)
    assert summary.refusal.value == pytest.approx(2 / 3)
    assert summary.judged["hazard_exactness"].value == pytest.approx(0.75)
    assert summary.harmful_nll.value == pytest.approx(2.0)
    assert np.isnan(summary.retain_perplexity.value)
    kept = _scores([0.0, 0.0, 0.0])._replace(retain=Likelihood(np.array([3.0]), np.array([3.0])))
    assert summarise(kept).retain_perplexity.value == pytest.approx(np.e)


def test_a_summary_counts_answers_without_an_end_without_a_beginning_and_without_a_score():
    assert summarise(EPISODE.before).answered == Answered(3, 2, 1, {"refusal": 0, "hazard_exactness": 1})
    assert summarise(EPISODE.before._replace(unfinished=None)).answered is None
