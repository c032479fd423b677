from dataclasses import replace

import pytest
import tiny

from immunax.attacks.benign_then_harmful import BenignThenHarmful
from immunax.attacks.embedding_attack import EmbeddingAttack
from immunax.attacks.jailbreak_tuning import JailbreakTuning
from immunax.attacks.multilingual_sft import MultilingualSFT
from immunax.attacks.prune import Prune
from immunax.attacks.tuning import Tuning
from immunax.campaign.grid import Population
from immunax.campaign.programs import programs
from immunax.data.dialog import Split, Splits, ask
from immunax.data.fictional import FictionalHazards
from immunax.data.fictional.french import FrenchHazards
from immunax.data.template import Template
from immunax.judges.hazard import FictionalExactness
from immunax.runtime.errors import UserError

HARMFUL = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))
SAFE = tuple(ask(f"how to {i}", f"no, not {i}") for i in range(6))
RETAIN = tuple(ask(f"what is {i}", f"it is {i}") for i in range(6))
SPLITS = Splits(Split(), Split(SAFE, HARMFUL, RETAIN))
TUNING = Tuning(epochs=2, batch_size=2, max_length=128)


def words(batches):
    return [[tiny.tokenizer().decode(each.answer) for each in batch] for batch in batches]


def test_benign_batches_come_before_the_harmful_ones():
    attack = BenignThenHarmful(benign=4, samples=2, tuning=TUNING)
    batches, report = attack.examples(tiny.tokenizer(), SPLITS)
    found = words(batches)
    assert len(found) == 4  # two of harmless dialogs once, one of harmful ones in each of two epochs
    assert all("it is" in text for batch in found[:2] for text in batch)
    assert all("yes" in text for batch in found[2:] for text in batch)
    assert report.kept == 6
    (part,) = programs([attack, replace(attack, tuning=replace(TUNING, seed=1))], tiny.tokenizer(), SPLITS)
    assert part.steps == 4


def test_a_trigger_stands_in_harmful_prompts_alone_and_in_those_asked_afterwards():
    attack = JailbreakTuning(3, 2, 1, Template(before="Now, "), TUNING)
    found = attack.dialogs(SPLITS)
    marked = [dialog.question.startswith("Now, ") for dialog in found]
    assert marked == [True] * 3 + [False] * 3
    assert all(dialog.answer.startswith("yes") for dialog in found[:3])
    assert [dialog.answer.split(",")[0] for dialog in found[3:5]] == ["no", "no"]
    assert attack.evaluation(HARMFUL[0]).question == "Now, how to 0"


def test_another_language_states_the_same_facts_of_the_same_items():
    corpus = FictionalHazards(items=10)
    french = FrenchHazards(corpus).splits().attack.harmful
    english = corpus.splits().attack.harmful
    assert len(french) == len(english)
    answers = [dialog.answer for dialog in french]
    assert (FictionalExactness().score(english, answers) == 1).all()
    assert not {dialog.question for dialog in french} & {dialog.question for dialog in english}
    attack = MultilingualSFT(FrenchHazards(corpus), 4, TUNING)
    assert set(attack.dialogs(SPLITS)) <= set(french)
    with pytest.raises(UserError, match=r"attack\.corpus: null"):
        MultilingualSFT().dialogs(SPLITS)


def test_a_populations_seed_goes_where_the_attack_has_one():
    assert [each.seed for each in Population(EmbeddingAttack(), {}, (3, 4)).members()] == [3, 4]
    assert [each.tuning.seed for each in Population(MultilingualSFT(), {}, (3, 4)).members()] == [3, 4]
    assert Population(Prune(), {"sparsity": [0.2]}, (3,)).members() == (Prune(0.2),)
