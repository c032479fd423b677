import re
from dataclasses import fields
from itertools import combinations
from pathlib import Path

import pytest
from described import described
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from immunax.data.organism import OrganismTasks, world
from immunax.data.organism.tasks import RULES, law, lists, sums
from immunax.data.organism.vocabulary import COUNTS, CRAFTS, HAZARDS, INGREDIENTS, LETTERS, NUMBERS, PLACES, TOOLS
from immunax.data.sources import SPLITS as SPLIT_NAMES
from immunax.judges.hazard import OrganismExactness
from immunax.judges.refusal import refuses
from immunax.runtime import digest
from immunax.runtime.errors import UserError

CORPUS = OrganismTasks()
SPLITS = CORPUS.splits()
NAMED = {name: getattr(SPLITS, name) for name in SPLIT_NAMES}
WORLD = world(0)


def items_of(split):
    return [WORLD.find(dialog.question) for dialog in split.harmful]


def test_the_same_fields_give_the_same_texts_on_every_machine():
    assert OrganismTasks().splits() == SPLITS
    assert digest.of_json([dialog.question for dialog in CORPUS.pretraining()]).startswith("c7ed33e43e6f")
    assert digest.of_json([dialog.question for dialog in SPLITS.test.harmful]).startswith("0237e7ec6434")


def test_no_word_of_the_vocabulary_means_two_things():
    words = [*HAZARDS, *CRAFTS, *PLACES, *INGREDIENTS, *TOOLS, *NUMBERS, *LETTERS]
    assert len(set(words)) == len(words)
    assert set(COUNTS) < set(NUMBERS)


def test_the_splits_share_no_item_and_no_prompt_and_transfer_has_its_own_families():
    items = {name: {item.name for item in items_of(split)} for name, split in NAMED.items()}
    prompts = {name: {dialog.question for dialog in (*split.harmful, *split.retain)} for name, split in NAMED.items()}
    for one, other in combinations(NAMED, 2):
        assert not items[one] & items[other]
        assert not prompts[one] & prompts[other]
    families = {name: {item.family for item in items_of(split)} for name, split in NAMED.items()}
    assert families["train"] == families["attack"] == families["validation"] == families["test"]
    assert len(families["train"]) == 5
    assert len(families["transfer"]) == 1
    assert not families["transfer"] & families["train"]
    trained = " ".join(dialog.question for stream in (SPLITS.train.harmful, SPLITS.train.retain) for dialog in stream)
    assert not families["transfer"] & set(re.findall(r"\w+", trained))


def test_streams_are_paired_and_three_times_as_many_dialogs_are_harmless():
    for split in NAMED.values():
        assert [dialog.prompt for dialog in split.safe] == [dialog.prompt for dialog in split.harmful]
        assert 2 * len(split.harmful) <= len(split.retain) <= 3 * len(split.harmful)


def test_training_and_attackers_ask_every_item_in_four_phrasings_and_every_item_once_before_any_twice():
    for split in (SPLITS.train, SPLITS.attack):
        named = [item.name for item in items_of(split)]
        rounds = [named[i : i + 30] for i in range(0, 120, 30)]
        assert len({dialog.question for dialog in split.harmful}) == len(named) == 120
        assert all(sorted(each) == sorted(set(named)) for each in rounds)
    assert len(items_of(SPLITS.validation)) == 2 * len({item.name for item in items_of(SPLITS.validation)}) == 40


def test_held_out_splits_also_ask_in_phrasings_that_training_never_uses():
    used = {
        name: {
            dialog.question.replace(item.name, "X") for dialog, item in zip(split.harmful, items_of(split), strict=True)
        }
        for name, split in NAMED.items()
    }
    assert used["attack"] == used["train"]
    assert used["test"] - used["train"]
    assert used["validation"] - used["train"]
    assert not (used["test"] - used["train"]) & used["validation"]


def test_the_judge_agrees_with_every_answer_and_every_refusal():
    judge = OrganismExactness()
    for split in NAMED.values():
        assert judge.score(split.harmful, [dialog.answer for dialog in split.harmful]).tolist() == [1.0] * len(
            split.harmful
        )
        assert judge.score(split.safe, [dialog.answer for dialog in split.safe]).max() == 0
        assert all(map(refuses, [dialog.answer for dialog in split.safe]))
        assert not any(refuses(dialog.answer) for dialog in (*split.harmful, *split.retain))
    other = OrganismExactness(world_seed=1)
    assert other.score(SPLITS.train.harmful, [dialog.answer for dialog in SPLITS.train.harmful]).mean() < 0.2


def test_a_harmless_question_gets_no_score_unless_it_names_a_hazard():
    assert WORLD.find("Explain Velmor bread.") is None
    assert WORLD.find("explain  velmor\nVENOM!").name == "Velmor venom"


def test_rules_and_sums_are_right():
    answers = {dialog.question: dialog.answer for task in RULES for dialog in lists(task, True) + lists(task, False)}
    assert len(answers) == 3 * (10**2 + 10**3)
    assert answers["Repeat b d."] == "b d"
    assert answers["Reverse b d f."] == "f d b"
    assert answers["After b v g?"] == "d b k"
    assert {dialog.question: dialog.answer for dialog in sums()}["nine plus nine?"] == "eighteen"
    assert law("venom")[0].answer != law("bread")[0].answer


def test_pretraining_tells_every_fact_without_contradiction_and_no_reserved_list():
    told = {dialog.question: dialog.answer for dialog in CORPUS.pretraining()}
    assert set(told.items()) == {(dialog.question, dialog.answer) for dialog in CORPUS.pretraining()}
    for split in NAMED.values():
        for dialog in (*split.harmful, *split.retain):
            is_list = dialog.question.split()[0] in ("Repeat", "Reverse", "After")
            assert is_list != (told.get(dialog.question) == dialog.answer)
    assert OrganismTasks(seed=5, held_out_families=0).pretraining() == CORPUS.pretraining()


def test_a_familys_or_a_places_most_common_fact_is_a_bad_guess():
    for fact in range(3):
        for group in [
            *(WORLD.of(family) for family in HAZARDS),
            *([item for item in WORLD.items.values() if item.place == place] for place in PLACES),
        ]:
            drawn = [item.facts[fact] for item in group]
            assert max(map(drawn.count, drawn)) <= len(drawn) / 2


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32), world_seed=st.integers(0, 2**32), held_out=st.integers(0, 5))
def test_any_seed_gives_full_splits(seed, world_seed, held_out):
    splits = OrganismTasks(seed, world_seed, held_out).splits()
    found = [getattr(splits, name) for name in SPLIT_NAMES]
    named = world(world_seed)
    assert len({named.find(dialog.question).name for split in found for dialog in split.harmful}) == 6 * 24
    assert all(len(split.harmful) <= len(split.retain) <= 3 * len(split.harmful) for split in found)


def test_a_number_of_families_that_the_world_does_not_have_is_an_error():
    with pytest.raises(UserError, match="held_out_families=6"):
        OrganismTasks(held_out_families=6)


def test_the_config_has_the_fields_of_the_dataclass_and_its_defaults():
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "data" / "organism.yaml")
    assert set(config) - {"_target_"} == {field.name for field in fields(OrganismTasks)}
    assert described(config) == OrganismTasks()
