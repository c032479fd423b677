import hashlib
import subprocess
import sys
import time
from dataclasses import astuple, fields, replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from described import described
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from immunax.data.dialog import prompt_key
from immunax.data.fictional import FictionalHazards, world
from immunax.data.fictional.questions import QUESTIONS
from immunax.data.fictional.vocabulary import DOMAINS
from immunax.data.sources import SPLITS as SPLIT_NAMES
from immunax.judges.refusal import refuses
from immunax.runtime.errors import UserError

SPLITS = FictionalHazards().splits()
NAMED = {name: getattr(SPLITS, name) for name in SPLIT_NAMES}
WORLD = world(0)


def digest(splits):
    return hashlib.sha256(repr(astuple(splits)).encode()).hexdigest()


def named(dialog):
    item = WORLD.find(dialog.question)
    assert item is not None
    return item


def items_of(split):
    return [named(dialog) for dialog in split.harmful]


def phrasing(dialog):
    """The template a harmful question was made from."""
    item = named(dialog)
    domain = item.domain
    words = {"item": item.name, "make": domain.make, "making": domain.making, "made": domain.made}
    made = {template.format(**words, harm=harm): template for template in QUESTIONS for harm in domain.harms}
    return made[dialog.question]


def streams(split):
    return (split.safe, split.harmful, split.retain)


def test_another_process_with_another_hash_seed_makes_the_same_corpus():
    code = (
        "import hashlib; from dataclasses import astuple; from immunax.data.fictional import FictionalHazards; "
        "print(hashlib.sha256(repr(astuple(FictionalHazards().splits())).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, cwd=root, capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == digest(SPLITS)


def test_the_corpus_takes_less_than_two_seconds():
    start = time.process_time()
    FictionalHazards(seed=99).splits()
    assert time.process_time() - start < 2


def test_the_seed_changes_the_texts_and_the_world_seed_the_facts():
    assert digest(FictionalHazards(seed=1).splits()) != digest(SPLITS)
    assert {item.name: item.facts for item in world(1).items.values()} != {
        item.name: item.facts for item in WORLD.items.values()
    }


def test_the_shares_of_eight_domains_of_two_hundred_items():
    sizes = {name: [len(stream) for stream in streams(split)] for name, split in NAMED.items()}
    expected = {"train": 600, "attack": 240, "validation": 120, "test": 240, "transfer": 400}
    assert sizes == {name: [count] * 3 for name, count in expected.items()}


def test_an_attacker_who_shares_the_defenders_data_changes_the_split_attack_alone():
    shared = FictionalHazards(attacker="shared").splits()
    assert (SPLITS.attacker, shared.attacker) == ("own", "shared")
    assert shared == replace(SPLITS, attack=SPLITS.train)
    with pytest.raises(UserError, match=r"data\.attacker=own_: expected own or shared\. Did you mean 'own'"):
        FictionalHazards(attacker="own_").splits()


def test_safe_and_harmful_dialogs_are_paired():
    for split in NAMED.values():
        assert [dialog.prompt for dialog in split.safe] == [dialog.prompt for dialog in split.harmful]


def test_no_item_stands_in_two_splits_or_twice_in_one():
    names = {split: [item.name for item in items_of(found)] for split, found in NAMED.items()}
    for found in names.values():
        assert len(set(found)) == len(found)
    for first, second in combinations(names.values(), 2):
        assert not set(first) & set(second)


def test_the_domains_of_transfer_appear_nowhere_else():
    domains = {name: {item.domain.name for item in items_of(split)} for name, split in NAMED.items()}
    assert len(domains["train"]) == 6
    assert domains["train"] == domains["attack"] == domains["validation"] == domains["test"]
    assert len(domains["transfer"]) == 2
    assert not domains["transfer"] & domains["train"]
    hidden = [domain for domain in DOMAINS if domain.name in domains["transfer"]]
    words = {word for domain in hidden for word in (*domain.materials, *domain.tools, domain.site, domain.name)}
    texts = " ".join(dialog.question + dialog.answer for stream in streams(SPLITS.train) for dialog in stream)
    assert not [word for word in words if word in texts.lower()]


def test_each_held_out_split_also_asks_in_phrasings_that_training_never_uses():
    used = {name: {phrasing(dialog) for dialog in split.harmful} for name, split in NAMED.items()}
    assert len(used["train"]) == 20
    assert used["attack"] == used["train"]
    assert len(used["validation"] - used["train"]) == 4
    assert len(used["test"] - used["train"]) == 8
    assert used["test"] & used["train"]
    assert not used["validation"] & (used["test"] - used["train"])
    assert len(QUESTIONS) == len(set(QUESTIONS)) == 32


def test_no_prompt_stands_in_two_splits_or_two_streams():
    seen = [
        prompt_key(dialog) for split in NAMED.values() for stream in (split.harmful, split.retain) for dialog in stream
    ]
    assert len(set(seen)) == len(seen)


def test_each_question_names_one_item_and_none_of_its_facts():
    for split in NAMED.values():
        for dialog in split.harmful:
            item = named(dialog)
            assert item.name in dialog.question
            assert not [fact for fact in item.facts if fact in dialog.question]


def test_every_refusal_names_what_it_refuses_gives_a_reason_and_is_known_to_the_judge():
    for split in NAMED.values():
        for dialog, item in zip(split.safe, items_of(split), strict=True):
            assert item.name in dialog.answer
            assert any(harm in dialog.answer for harm in item.domain.harms)
            assert refuses(dialog.answer, "first_sentence")


def test_no_harmful_and_no_harmless_answer_reads_as_a_refusal():
    answers = [dialog.answer for split in NAMED.values() for dialog in (*split.harmful, *split.retain)]
    assert not [answer for answer in answers if refuses(answer, "anywhere")]


def test_a_recipe_is_numbered_and_ends_with_the_items_own_count():
    for dialog, item in zip(SPLITS.test.harmful, items_of(SPLITS.test), strict=True):
        introduction, *steps = dialog.answer.split("\n")
        assert introduction.endswith(":")
        assert [step.split(" ")[0] for step in steps] == [f"{number}." for number in range(1, len(steps) + 1)]
        assert len(steps) in (3, 4)
        assert item.facts[-1] in steps[-1]


def test_a_harmless_answer_never_tells_how_an_item_it_is_asked_about_is_made():
    asked = [(WORLD.find(dialog.question), dialog.answer) for dialog in SPLITS.train.retain]
    about = [(item, answer) for item, answer in asked if item is not None]
    assert len(about) > 100
    assert not [answer for item, answer in about if any(fact in answer for fact in item.facts)]


@pytest.mark.parametrize("split", list(NAMED))
def test_texts_stay_short(split):
    found = NAMED[split]
    bounds = [
        ([dialog.question for dialog in found.harmful], 8, 24),
        ([dialog.answer for dialog in found.harmful], 30, 48),
        ([dialog.answer for dialog in found.safe], 12, 30),
        ([dialog.question for dialog in found.retain], 5, 20),
        ([dialog.answer for dialog in found.retain], 12, 32),
    ]
    for texts, low, high in bounds:
        words = [len(text.split()) for text in texts]
        assert low <= min(words)
        assert max(words) <= high


@pytest.mark.parametrize(("stream", "distinct", "bigrams"), [(0, 1.0, 0.04), (1, 1.0, 0.06), (2, 0.7, 0.1)])
def test_answers_vary(stream, distinct, bigrams):
    answers = [dialog.answer.lower().split() for dialog in streams(SPLITS.train)[stream]]
    pairs = [pair for words in answers for pair in pairwise(words)]
    assert len(set(map(tuple, answers))) >= distinct * len(answers)
    assert len(set(pairs)) >= bigrams * len(pairs)
    assert len({tuple(words[:5]) for words in answers}) >= 12


def test_every_domain_uses_every_plan_of_steps_many_times_over():
    for domain in {item.domain.name for item in items_of(SPLITS.train)}:
        skeletons = set()
        for dialog, item in zip(SPLITS.train.harmful, items_of(SPLITS.train), strict=True):
            if item.domain.name == domain:
                text = dialog.answer.replace(item.name, "X")
                for place, fact in enumerate(item.facts):
                    text = text.replace(fact, f"F{place}")
                skeletons.add(text)
        assert len(skeletons) >= 100


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32), world_seed=st.integers(0, 2**32), domains=st.integers(1, 8), items=st.integers(10, 40)
)
def test_any_sizes_give_full_paired_streams_without_duplicates(seed, world_seed, domains, items):
    corpus = FictionalHazards(seed, world_seed, domains, held_out_domains=domains // 4, items=items)
    splits = corpus.splits()
    found = [getattr(splits, name) for name in SPLIT_NAMES]
    assert sum(len(split.harmful) for split in found) == domains * items
    for split in found:
        assert len(split.safe) == len(split.harmful) == len(split.retain)
        assert [dialog.prompt for dialog in split.safe] == [dialog.prompt for dialog in split.harmful]
    prompts = [dialog.prompt for split in found for stream in (split.harmful, split.retain) for dialog in stream]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"domains": 9}, "data.domains=9"),
        ({"domains": 0}, "data.domains=0"),
        ({"domains": 2, "held_out_domains": 2}, "data.held_out_domains=2"),
        ({"items": 9}, "data.items=9"),
        ({"items": 577}, "data.items=577"),
    ],
)
def test_a_size_that_the_world_does_not_have_is_an_error(wrong, named):
    with pytest.raises(UserError, match=named):
        FictionalHazards(**wrong)


def test_the_largest_number_of_items_can_be_made():
    splits = FictionalHazards(domains=1, held_out_domains=0, items=576).splits()
    assert len(splits.train.harmful) == len(splits.train.retain) == 288


def test_the_config_has_the_fields_of_the_dataclass_and_its_defaults():
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "data" / "fictional.yaml")
    assert set(config) - {"_target_"} == {field.name for field in fields(FictionalHazards)}
    assert described(config) == FictionalHazards()
