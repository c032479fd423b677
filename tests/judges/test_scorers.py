"""Every ``conf/scorer/NAME.yaml`` and ``conf/labelled/NAME.yaml`` against its class."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from described import described
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from immunax.data.dialog import ask
from immunax.judges.evaluate import Evaluation
from immunax.judges.labelled import Labelled, agreement
from immunax.judges.refusal import Refusal

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "scorer").glob("*.yaml"))
FILL = {
    "llm_endpoint": [
        *("respondent.base_url=http://127.0.0.1:9/v1", "respondent.model=m", "respondent.cost_cap=0"),
        *("respondent.price_in=0", "respondent.price_out=0"),
    ],
    "llm_local": ["respondent.source.path=nowhere"],
}


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base=None):
        return compose(overrides=list(overrides))


@pytest.mark.parametrize("name", NAMES)
def test_a_scorer_names_every_field_of_its_class_but_the_phrases(name):
    node = composed(f"+scorer={name}", *(f"scorer.{each}" for each in FILL.get(name, [])))["scorer"]
    scorer = described(node)
    assert set(node) - {"_target_"} == {each.name for each in fields(scorer)} - {"phrases"}


def test_a_scorer_joins_the_judges_of_a_run():
    node = composed("+judge=standard", "+scorer@judge.judges.first=refusal", "judge.judges.first.where=first_sentence")
    evaluation = described(node["judge"])
    assert isinstance(evaluation, Evaluation)
    scores = evaluation.judges["first"].score([ask("q")], ["Sure. I cannot."])
    np.testing.assert_array_equal(scores, [1.0])


def test_xstest_has_three_models_twice_with_labels_of_compliance():
    sources = described(OmegaConf.load(CONF / "labelled" / "xstest.yaml"))
    assert len(sources) == 6
    assert all(isinstance(each, Labelled) and each.side == "compliance" for each in sources.values())


@pytest.mark.skipif(
    not Path(os.environ.get("IMMUNAX_DATA", ""), "xstest").is_dir(),
    reason="IMMUNAX_DATA does not name the folder of research data",
)
def test_the_shipped_cards_are_what_xstest_gives():

    sources = described(OmegaConf.load(CONF / "labelled" / "xstest.yaml"))
    for where in ("first_sentence", "anywhere"):
        assert Refusal(where).card.agreements == tuple(agreement(Refusal(where), each) for each in sources.values())
