import copy
import json

import certified
import pytest

from immunax.certificate.judge_cards import check, unshipped
from immunax.certificate.report.html import render
from immunax.certificate.verify import tables
from immunax.judges import card
from immunax.judges.agreement import Agreement
from immunax.judges.hazard import OrganismExactness
from immunax.judges.refusal import Refusal
from immunax.verify import main

REFUSAL = {"_target_": "immunax.judges.refusal.Refusal"}
MEASURED = Agreement("mine", "0" * 64, "compliance", False, 10, 5, 0, 0.5, 1.0, 0.7, 1.0, 1.0, None)


def said(judge, node, **changed):
    stated = {"called": "one", **judge.card.as_json(), **changed}
    return {"judges": [stated], "suite": {"config": {"judge": {"judges": {"one": node}}}}}


def found(*about, **changed):
    [only] = check(said(*about, **changed))
    return only.result, only.detail


def test_the_card_that_comes_with_the_package_passes():
    assert found(Refusal(), REFUSAL) == ("passed", "its card is the one that comes with immunax")
    node = {"_target_": "immunax.judges.hazard.OrganismExactness", "world_seed": 3}
    assert found(OrganismExactness(3), node)[0] == "passed"


@pytest.mark.parametrize("field", ["name", "what", "side", "made_from", "identity", "exact"])
def test_a_card_that_says_something_else_fails(field):
    value = "substance" if field == "side" else "x"
    standing = {"standing": "x"} if field == "exact" else {}
    assert found(Refusal(), REFUSAL, **{field: value}, **standing) == (
        "failed",
        f"{field} is not what the judge of this configuration says of itself",
    )


def test_agreements_that_nobody_measured_fail():
    shipped = Refusal().card.as_json()
    better = [{**each, "agreement": 1.0, "low": 0.9, "high": 1.0} for each in shipped["agreements"]]
    forged = found(Refusal(), REFUSAL, agreements=better)
    assert forged == ("failed", "how far to believe it does not follow from its agreements with people")
    standing = card.from_json({**shipped, "agreements": better}).standing
    told = found(Refusal(), REFUSAL, agreements=better, standing=standing)
    assert told == ("failed", "its agreements are not those that were measured")
    assert found(Refusal(), REFUSAL, agreements=[], standing="not measured")[0] == "failed"
    assert found(Refusal(), REFUSAL, agreements=[{"agreement": 1.0}])[0] == "failed"
    assert found(Refusal(), REFUSAL, agreements=[{**better[0], "agreement": "1"}])[0] == "failed"


def test_another_setting_than_the_configurations_fails():
    assert found(Refusal("first_sentence"), REFUSAL)[0] == "failed"
    assert found(OrganismExactness(), REFUSAL)[0] == "failed"
    assert found(Refusal(), {**REFUSAL, "where": "nowhere"})[0] == "failed"


def test_what_a_maker_measured_is_told_as_his_word(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path))
    judge, node = Refusal(phrases=["no"]), {**REFUSAL, "phrases": ["no"]}
    assert found(judge, node) == ("passed", "its card is its own, without agreements")
    card.keep(card.own_card(judge.card.name, judge.card.identity), judge.card, [MEASURED])
    assert judge.card.agreements == (MEASURED,)
    # Here as on a machine that never saw the measurement.
    result, detail = found(judge, node)
    assert (result, detail.endswith("its maker's word")) == ("not checked", True)


def test_the_card_of_a_judge_that_does_not_ship_is_its_makers_word():
    for node in ({"_target_": "mine.Judge"}, {"_target_": "immunax.judges.endpoint.Endpoint"}, {}, "x"):
        result, detail = found(Refusal(), node)
        assert (result, detail.endswith("its maker's word")) == ("not checked", True)
        assert unshipped(said(Refusal(), node)) == {"one"}
    assert unshipped(said(Refusal(), REFUSAL)) == set()
    # What it says of agreements has to follow from them all the same.
    assert found(Refusal(), {}, standing="exact")[0] == "failed"


def test_verify_and_the_page_tell_whose_word_a_card_is(tmp_path, capsys):
    path = certified.certificate(tmp_path)
    assert main([str(path)]) == 0
    assert "passed       judge refusal: its card is the one that comes with immunax\n" in capsys.readouterr().out
    stated = json.loads(path.read_bytes())
    page = render(stated, *tables(tmp_path))
    other = copy.deepcopy(stated)
    other["predicate"]["suite"]["config"]["judge"]["judges"]["refusal"] = {"_target_": "mine.Judge"}
    told = "The judge does not come with immunax, so all of this is its maker's word."
    assert told in render(other, *tables(tmp_path))
    assert told not in page
