from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.multilingual_sft import MultilingualSFT
from immunax.judges.evaluate import Evaluation
from immunax.judges.hazard import FictionalExactness
from immunax.judges.refusal import Refusal
from immunax.stages.red_team import tell_language


def test_an_attack_in_another_language_and_a_judge_of_english_phrases_are_told_of_one_another(capsys):
    phrases, exact = Evaluation({"mine": Refusal()}), Evaluation({"exact": FictionalExactness()})
    for attack, evaluation, told in (
        (MultilingualSFT(), phrases, True),
        (MultilingualSFT(), exact, False),
        (HarmfulSFT(), phrases, False),
    ):
        tell_language(attack, evaluation)
        assert ("the judge mine looks for English phrases" in " ".join(capsys.readouterr().err.split())) == told
    assert "English" in Refusal().card.what
