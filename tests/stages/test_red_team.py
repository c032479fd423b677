from types import SimpleNamespace

import pytest
import tiny
import tiny_model

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.multilingual_sft import MultilingualSFT
from immunax.attacks.tuning import Tuning
from immunax.campaign.grid import Population
from immunax.campaign.search import Search
from immunax.data.dialog import Split, Splits, ask
from immunax.judges.evaluate import Evaluation
from immunax.judges.hazard import FictionalExactness
from immunax.judges.refusal import Refusal
from immunax.models.model import Model
from immunax.runtime.errors import UserError
from immunax.stages.bench import bench
from immunax.stages.red_team import tell_language
from immunax.stages.search import search_and_score
from immunax.stages.setup import Setup
from immunax.stages.suite import Suite


def test_an_attack_in_another_language_and_a_judge_of_english_phrases_are_told_of_one_another(capsys):
    phrases, exact = Evaluation({"mine": Refusal()}), Evaluation({"exact": FictionalExactness()})
    for attack, evaluation, told in (
        (MultilingualSFT(), phrases, True),
        (MultilingualSFT(), exact, False),
        (HarmfulSFT(), phrases, False),
    ):
        tell_language([HarmfulSFT(), attack], evaluation)
        assert ("the judge mine looks for English phrases" in " ".join(capsys.readouterr().err.split())) == told
    assert "English" in Refusal().card.what


@pytest.mark.parametrize("searched", [False, True])
def test_a_suite_and_a_search_tell_of_the_language_before_anything_is_attacked(capsys, searched):
    dialogs = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(3))
    splits = Splits(Split(), test=Split(harmful=dialogs, retain=dialogs))
    evaluation = Evaluation({"mine": Refusal()}, prompts=2, examples=2, max_length=100)
    population = Population(MultilingualSFT(tuning=Tuning(max_length=100)))
    if searched:
        setup = Setup(SimpleNamespace(tokenizer=tiny.tokenizer()), Model(tiny_model.CONFIG), splits, {}, None)
        with pytest.raises(UserError, match=r"attack\.corpus: null"):
            search_and_score(Search({"french": population}), evaluation, setup, {}, "model", 0)
    else:
        bench(Suite("small", {"search": Search({"french": population})}), evaluation, tiny.tokenizer(), splits, 0)
    assert "the judge mine looks for English phrases" in " ".join(capsys.readouterr().err.split())
