import os
from itertools import combinations
from pathlib import Path

import pytest
from described import described
from omegaconf import OmegaConf

from immunax.data.dialog import prompt_key
from immunax.data.sources import SPLITS

ROOT = os.environ.get("IMMUNAX_DATA", "")
CONFIGS = Path(__file__).parents[2] / "conf" / "data"
HARMLESS = {f"{split}.retain" for split in SPLITS[:4]}
STREAMS = {
    "advbench": {"test.harmful"},
    "alpaca": HARMLESS,
    "beavertails": {f"{split}.{stream}" for split in SPLITS for stream in ("safe", "harmful", "retain")}
    - {"transfer.retain"},
    "beavertails_bianchi": {
        f"{split}.{stream}" for split in ("train", "validation", "test") for stream in ("safe", "harmful")
    },
    "bianchi": {f"{split}.{stream}" for split in SPLITS[:4] for stream in ("safe", "retain")} | {"test.harmful"},
    "decodingtrust": {f"{split}.{stream}" for split in SPLITS[:4] for stream in ("safe", "harmful", "retain")},
    "e2e_nlg": HARMLESS,
    "gsm8k": HARMLESS,
    "harmbench": {"validation.harmful", "test.harmful"},
    "identity_shift": {"attack.harmful"},
    "sst2": HARMLESS,
    "wikitext2": {"validation.retain", "test.retain"},
    "xstest": {"test.harmful", "test.retain"},
}

pytestmark = pytest.mark.skipif(
    not Path(ROOT, "beavertails_slice").is_dir(), reason="IMMUNAX_DATA does not name the folder of research data"
)


def load(name, attacker="own"):
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    config.root, config.attacker = ROOT, attacker
    return described(config).splits()


def streams(split):
    return {"safe": split.safe, "harmful": split.harmful, "retain": split.retain}


def keys(split):
    return {prompt_key(dialog) for dialogs in streams(split).values() for dialog in dialogs}


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_a_published_set_fills_its_streams_and_gives_neither_a_defense_nor_an_attacker_a_prompt_of_another_split(name):
    splits = load(name)
    filled = {f"{key}.{stream}" for key in SPLITS for stream, found in streams(getattr(splits, key)).items() if found}
    assert filled == STREAMS[name]
    prompts = {split: keys(getattr(splits, split)) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other] or not {"train", "attack"} & {one, other}
    assert splits.attacker == "own"


@pytest.mark.parametrize("name", ["beavertails", "decodingtrust"])
def test_the_safe_and_harmful_streams_are_paired(name):
    splits = load(name)
    for split in SPLITS:
        both = getattr(splits, split)
        assert [dialog.prompt for dialog in both.safe] == [dialog.prompt for dialog in both.harmful]


def test_beavertails_has_a_thousand_dialogs_for_an_attacker_and_can_give_him_the_defenders():
    assert len(load("beavertails").attack.harmful) >= 1000
    shared = load("beavertails", attacker="shared")
    assert shared.attack == shared.train == load("beavertails").train
    assert shared.attacker == "shared"


def test_beavertails_test_has_each_prompt_once():
    questions = [dialog.question for dialog in load("beavertails").test.harmful]
    assert len(set(questions)) == len(questions) == 649


def test_the_identity_shift_keeps_its_system_prompt():
    dialogs = load("identity_shift").attack.harmful
    assert len(dialogs) == 10
    assert all([message.role for message in dialog.prompt] == ["system", "user"] for dialog in dialogs)
    assert all(dialog.answer for dialog in dialogs)


def test_sst2_answers_in_words_and_e2e_has_slots_before_a_sentence():
    sentiment, entries = load("sst2"), load("e2e_nlg")
    for split in (sentiment.train, sentiment.validation, sentiment.test):
        assert {dialog.answer for dialog in split.retain} == {"positive", "negative"}
    for dialog in (*entries.attack.retain, *entries.test.retain):
        assert dialog.question.startswith("name : ")
        assert "|" not in dialog.answer
