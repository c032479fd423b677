import json

import numpy as np
import pytest
from scipy.stats import beta

from immunax.data.dialog import ask
from immunax.judges.agreement import compare
from immunax.judges.card import NOT_MEASURED, JudgeCard, from_json, own_card
from immunax.judges.hazard import FictionalExactness, OrganismExactness
from immunax.judges.labelled import Labelled, agreement
from immunax.judges.refusal import PHRASES, Refusal
from immunax.runtime import digest
from immunax.runtime.errors import UserError


def of(labels, scores, **fields):
    return compare(np.array(labels), np.array(scores, float), source="s", digest="d", side="compliance", **fields)


def test_agreement_is_a_rate_with_the_exact_binomial_interval():
    found = of([1] * 6 + [0] * 4, [1, 1, 1, 1, 0, 0, 0, 0, 0, 1])
    assert (found.n, found.harmful, found.missed, found.agreement) == (10, 6, 0, 0.7)
    assert found.low == pytest.approx(beta.ppf(0.025, 7, 4))
    assert found.high == pytest.approx(beta.ppf(0.975, 8, 3))


def test_kappa_is_what_is_left_of_agreement_without_chance():
    labels, scores = np.array([1] * 6 + [0] * 4), np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1])
    chance = 0.6 * 0.5 + 0.4 * 0.5
    assert of(labels, scores).kappa == pytest.approx((0.7 - chance) / (1 - chance))


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 40), rng.integers(0, 9, 40) / 8
    pairs = [(p > q) + (p == q) / 2 for p in scores[labels == 1] for q in scores[labels == 0]]
    assert of(labels, scores).auc == pytest.approx(np.mean(pairs))


def test_a_judge_of_yes_and_no_has_no_auc():
    assert of([1, 0, 1], [1, 0, 0]).auc is None


def test_where_people_say_one_thing_there_is_neither_auc_nor_kappa():
    found = of([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.7])
    assert (found.auc, found.kappa, found.agreement) == (None, None, 0.75)


def test_answers_without_a_score_are_counted_apart():
    found = of([1, 0, 1], [1, np.nan, 0])
    assert (found.n, found.missed, found.agreement) == (2, 1, 0.5)


def test_a_score_at_the_threshold_says_harmful():
    assert of([1, 0], [0.3, 0.2], threshold=0.3).agreement == 1.0


def test_a_card_comes_back_from_json():
    card = JudgeCard("j", "It judges.", "substance", "nothing", "i", agreements=(of([1, 0, 1], [0.9, 0.2, 0.4]),))
    text = json.loads(json.dumps(card.as_json()))
    assert from_json(text) == card
    assert text["standing"] == card.standing


def test_a_card_without_a_measurement_says_so():
    assert JudgeCard("j", "It judges.", "substance", "nothing", "i").standing == NOT_MEASURED
    assert Refusal(phrases=("no",)).card.standing == NOT_MEASURED


def test_the_standing_names_worst_and_best_source():
    worse, better = of([1, 0], [1, 1]), of([1, 0], [1, 0])
    card = JudgeCard("j", "It judges.", "compliance", "nothing", "i", agreements=(better, worse))
    assert card.standing == "agrees with people on 0.50 (s) to 1.00 (s) of labelled answers"


@pytest.mark.parametrize("judge", [FictionalExactness(3), OrganismExactness(3)])
def test_an_exact_judge_says_where_it_is_exact(judge):
    assert judge.card.side == "substance"
    assert "exact by construction" in judge.card.standing
    assert "seed 3" in judge.card.standing
    assert judge.card.identity != type(judge)(4).card.identity


@pytest.mark.parametrize("where", ["first_sentence", "anywhere"])
def test_the_refusal_judges_shipped_card_is_of_the_phrases_it_comes_with(where):
    card = Refusal(where).card
    assert card.side == "compliance"
    assert [each.n for each in card.agreements] == [450, 200] * 3
    assert all(each.low <= each.agreement <= each.high and not each.made_from_it for each in card.agreements)
    assert Refusal(where, PHRASES[1:]).card.agreements == ()


def test_a_damaged_card_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path))
    card = Refusal(phrases=("no",)).card
    path = own_card(card.name, card.identity)
    path.parent.mkdir(parents=True)
    path.write_text('{"identity": 1')
    with pytest.raises(UserError, match="damaged"):
        _ = Refusal(phrases=("no",)).card


def labelled(tmp_path, **fields):
    rows = ["kind,q,a,label", "x,q1,sure,yes", "x,q2,i cannot,no", "y,q3,sure,no", "y,q4,,yes"]
    (tmp_path / "rows.csv").write_text("\n".join(rows) + "\n")
    return Labelled("made up", "rows.csv", "q", "a", "label", **{"harmful": ["yes"], "root": str(tmp_path), **fields})


def test_a_judge_is_measured_on_labelled_answers(tmp_path):
    source = labelled(tmp_path)
    found = agreement(Refusal(), source)
    assert (found.n, found.harmful, found.agreement) == (4, 2, 0.75)
    assert found.digest == digest.of_file(tmp_path / "rows.csv")
    assert agreement(Refusal(), labelled(tmp_path, where={"kind": "x"})).agreement == 1.0
    assert source.read().prompts[0] == ask("q1")


def test_a_judge_that_does_not_apply_is_not_measured(tmp_path):
    with pytest.raises(UserError, match="fictional_exactness does not apply to made up"):
        agreement(FictionalExactness(), labelled(tmp_path))


def test_an_answer_without_a_label_is_not_taken_for_a_harmless_one(tmp_path):
    source = labelled(tmp_path)
    with (tmp_path / "rows.csv").open("a") as rows:
        rows.write("z,q5,sure,\n")
    with pytest.raises(UserError, match="made up: 1 of 5 answers have no label"):
        source.read()
    assert len(labelled(tmp_path, where={"kind": ["x", "y"]}).read().labels) == 4


def test_a_filter_that_leaves_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no row is left"):
        labelled(tmp_path, where={"kind": "z"}).read()
