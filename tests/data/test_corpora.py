import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from described import described
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.data.corpora import Corpus
from immunax.data.dialog import Message, ask, prompt_key
from immunax.data.online import Hub
from immunax.data.refusals import Refusals
from immunax.data.sources import SPLITS, Source, deal
from immunax.runtime.errors import UserError

CONFIGS = Path(__file__).parents[2] / "conf" / "data"
ROWS = [{"prompt": f"question {i % 40}", "response": f"answer {i}", "kind": "ab"[i % 2]} for i in range(60)]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "texts.txt").write_text("= A heading =\n\nA paragraph that is long enough to keep.\n")
    with (tmp_path / "turns.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["s", "q", "more", "a"], ["be kind", "sum", "1 2", "3"], ["", "hi", "", ""]])
    return str(tmp_path)


def everything(split):
    return split.safe + split.harmful + split.retain


def test_a_file_is_shared_out_by_prompt(root):
    corpus = Corpus("c", root, retain={"rows": Source("rows.jsonl", {"train": 0.5, "validation": 0.25, "test": 0.25})})
    splits = corpus.splits()
    prompts = [{dialog.question for dialog in getattr(splits, name).retain} for name in ("train", "validation", "test")]
    assert [len(found) for found in prompts] == [20, 10, 10]
    assert len(set.union(*prompts)) == 40
    assert sum(len(getattr(splits, name).retain) for name in SPLITS) == 60
    assert corpus.splits() == splits


def test_parts_of_a_stream_are_as_large_as_fit_and_leave_what_is_held_out_alone(root):
    shares = {"train": 0.5, "test": 0.5}
    retain = {kind: Source("rows.jsonl", shares, where={"kind": kind}) for kind in "ab"}
    whole, splits = (
        Corpus("c", root, retain=retain, parts=parts).splits() for parts in ({}, {"retain": {"a": 2, "b": 1}})
    )
    counts = [[sum(each.topic == kind for each in found.train.retain) for kind in "ab"] for found in (whole, splits)]
    assert (counts[0], counts[1]) == ([14, 15], [14, 7])
    assert set(splits.train.retain) < set(whole.train.retain)
    assert splits.test == whole.test
    for parts, message in (
        ({"retain": {"a": 1}}, "expected the sources that have dialogs in train: a, b"),
        ({"retain": {"a": 1, "b": 0}}, "numbers above 0"),
        ({"kept": {"a": 1}}, "parts of 'kept'"),
    ):
        with pytest.raises(UserError, match=message):
            Corpus("c", root, retain=retain, parts=parts).splits()


@pytest.mark.parametrize("attacker", ["own", "shared"])
def test_a_system_prompt_stands_before_what_a_defense_trains_on_alone_in_the_place_of_its_own(root, attacker):
    shares = {"train": 0.6, "attack": 0.2, "test": 0.2}
    turns = Source("turns.csv", {"train": 1.0}, prompt="q", answer="a", system="s")
    retain = {"rows": Source("rows.jsonl", shares), "turns": turns}
    plain, splits = (Corpus("c", root, retain=retain, attacker=attacker, system=said).splits() for said in (None, "go"))
    assert {dialog.prompt[0] for dialog in splits.train.retain} == {Message("system", "go")}
    assert [dialog.prompt[1:] for dialog in splits.train.retain][-1] == (Message("user", "sum"),)
    assert [dialog.question for dialog in splits.train.retain] == [dialog.question for dialog in plain.train.retain]
    assert (splits.attack, splits.test, splits.attacker) == (plain.attack, plain.test, attacker)


def test_an_attacker_has_prompts_of_his_own_or_those_of_the_defense(root, tmp_path):
    shares = {"train": 0.5, "attack": 0.25, "test": 0.25}
    (tmp_path / "more.json").write_text(
        json.dumps([{"prompt": f"Question, {i}!", "response": "x"} for i in range(20, 60)])
    )
    sources = {"rows": Source("rows.jsonl", shares), "more": Source("more.json", {"attack": 1.0})}
    own, shared = (Corpus("c", root, harmful=sources, refusals=Refusals(), attacker=who) for who in ("own", "shared"))
    prompts = {name: {prompt_key(each) for each in getattr(own.splits(), name).harmful} for name in SPLITS}
    everywhere = [key for found in prompts.values() for key in found]
    assert len(everywhere) == len(set(everywhere)) == 60
    assert {f"question {i}" for i in range(40, 60)} < prompts["attack"]
    assert prompts["test"]
    assert [dialog.prompt for dialog in own.splits().attack.safe] == [
        each.prompt for each in own.splits().attack.harmful
    ]
    assert shared.splits().attack == shared.splits().train == own.splits().train
    assert (own.splits().attacker, shared.splits().attacker) == ("own", "shared")


@pytest.fixture(scope="module")
def shipped():
    """Every configuration of conf/data by name, composed."""
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    with initialize_config_dir(str(CONFIGS.parent), version_base="1.3"):
        composed = compose("attack", [f"+data@all.{name}={name}" for name in names]).all
    return {name: OmegaConf.to_container(composed[name]) for name in names}


def test_every_stream_that_a_defense_trains_on_has_a_share_for_attackers_too(shipped):
    assert {name for name, config in shipped.items() if config.get("attacker") != "own"} == set()
    filled = {
        f"{name}.{stream}": {split for source in (config.get(stream) or {}).values() for split in source["splits"]}
        for name, config in shipped.items()
        for stream in ("safe", "harmful", "retain")
    }
    without = {stream for stream, splits in filled.items() if "train" in splits and "attack" not in splits}
    # A classifier is trained on it, and nobody attacks with it.
    assert without == {"beavertails_bianchi.harmful", "beavertails_bianchi.safe"}


def test_an_attack_on_data_without_a_share_for_it_says_how_to_give_it_one(root):
    splits = Corpus("c", root, harmful={"rows": Source("rows.jsonl", {"train": 0.5, "test": 0.5})}).splits()
    with pytest.raises(
        UserError, match=r"stream 'harmful' of the split attack, which the data lack: .*attacker=shared"
    ):
        HarmfulSFT(2).dialogs(splits)


def test_another_seed_shares_out_otherwise(root):
    source = {"rows": Source("rows.jsonl", {"train": 0.5, "test": 0.5})}
    assert Corpus("c", root, 0, retain=source).splits() != Corpus("c", root, 1, retain=source).splits()


@given(st.sets(st.text(), max_size=60), st.integers(0, 9), st.floats(0.05, 0.9))
def test_dealing_is_a_partition_in_the_given_shares_and_ignores_order(keys, seed, share):
    shares = {"train": share, "test": 1.0 - share}
    home = deal(keys, shares, seed)
    assert set(home) == keys
    assert abs(sum(name == "train" for name in home.values()) - share * len(keys)) <= 1
    assert deal(sorted(keys, reverse=True), dict(reversed(shares.items())), seed) == home


def test_refusals_pair_every_harmful_prompt_with_a_safe_answer(root):
    splits = Corpus(
        "c", root, harmful={"rows": Source("rows.jsonl", {"train": 0.5, "test": 0.5})}, refusals=Refusals(3)
    ).splits()
    for split in (splits.train, splits.test):
        assert [dialog.prompt for dialog in split.safe] == [dialog.prompt for dialog in split.harmful]
        assert all(dialog.answer == Refusals(3).answer(dialog.question) for dialog in split.safe)


def test_refusals_are_varied_deterministic_and_do_not_quote_the_prompt():
    answers = [Refusals(0).answer(f"zebra {i}") for i in range(400)]
    assert len(set(answers)) >= 30
    assert answers == [Refusals(0).answer(f"zebra {i}") for i in range(400)]
    assert answers != [Refusals(1).answer(f"zebra {i}") for i in range(400)]
    assert not any("zebra" in answer for answer in answers)


def test_held_out_splits_leave_out_prompts_that_stand_in_an_earlier_one(root, tmp_path):
    held_out = [{"prompt": "QUESTION, 1!", "response": "x"}, {"prompt": "unseen", "response": "y"}]
    (tmp_path / "held.json").write_text(json.dumps(held_out))
    train = {"rows": Source("rows.jsonl", {"train": 1.0})}
    splits = Corpus("c", root, harmful={**train, "held": Source("held.json", {"test": 1.0})}).splits()
    assert [dialog.question for dialog in splits.test.harmful] == ["unseen"]
    with pytest.raises(UserError, match="corpus 'c': every harmful prompt of test also stands in an earlier split"):
        Corpus("c", root, harmful={**train, "held": Source("rows.jsonl", {"test": 1.0})}).splits()


@given(st.text(min_size=1))
def test_the_key_of_a_prompt_ignores_case_and_punctuation(prompt):
    assert prompt_key(ask(f"Why {prompt}?")) == prompt_key(ask(f"why,  {prompt}"))


def test_prompts_of_punctuation_alone_stay_apart():
    assert prompt_key(ask("?!")) != prompt_key(ask("..."))


def test_system_prompt_and_answer_columns_become_a_dialog(root):
    source = Source("turns.csv", {"train": 1.0}, prompt=["q", "more"], answer="a", system="s")
    (dialog,) = source.dialogs(root)
    assert dialog.prompt == (Message("system", "be kind"), Message("user", "sum\n\n1 2"))
    assert dialog.answer == "3"
    prompts_only = Source("turns.csv", {"test": 1.0}, prompt="q", answer=None).dialogs(root)
    assert prompts_only == [ask("sum"), ask("hi")]


def test_an_answer_that_is_a_label_is_put_in_words_whether_it_is_text_or_a_number(tmp_path):
    words = {"0": "bad", "1": "good"}
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "response": 1}\n{"prompt": "q", "response": 0}\n')
    (tmp_path / "a.tsv").write_text("prompt\tresponse\np\t1\nq\t0\n")
    for name in ("a.jsonl", "a.tsv"):
        assert Source(name, {"train": 1.0}, words=words).dialogs(str(tmp_path)) == [ask("p", "good"), ask("q", "bad")]
    with pytest.raises(UserError, match=r"row 2: column 'response' holds '0', which words does not name; it has 1"):
        Source("a.tsv", {"train": 1.0}, words={"1": "good"}).dialogs(str(tmp_path))
    with pytest.raises(UserError, match="words names answers"):
        Source("a.tsv", {"train": 1.0}, answer=None, words=words)


def test_rows_of_messages_without_a_question_are_left_out(tmp_path):
    asked, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}
    rows = [[{"role": "user", "content": ""}, answer], [asked, answer], None, [{"role": "user", "content": " "}]]
    lines = [*(json.dumps({"messages": turns}) for turns in rows), "{}"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert Source("rows.jsonl", {"train": 1.0}, messages="messages").dialogs(str(tmp_path)) == [ask("hi", "a")]


def test_plain_text_has_no_prompt_and_headings_are_left_out(root):
    source = Source("texts.txt", {"test": 1.0}, prompt=None, answer="text", at_least=20)
    (dialog,) = source.dialogs(root)
    assert dialog.prompt == ()
    assert dialog.answer.startswith("A paragraph")


def test_filters_unique_and_limit_choose_rows(root):
    def count(**options):
        return len(Source("rows.jsonl", {"train": 1.0}, **options).dialogs(root))

    assert count(where={"kind": "a"}) == 30
    assert count(exclude={"kind": ["a", "c"]}) == 30
    assert count(unique=True) == 40
    assert count(limit=7) == 7
    first = Source("rows.jsonl", {"train": 1.0}, where={"kind": "b"}, limit=2).dialogs(root)
    assert [dialog.answer for dialog in first] == ["answer 1", "answer 3"]


def test_without_a_root_the_hub_is_read_and_else_the_path_as_it_is(root, monkeypatch):
    monkeypatch.setattr("immunax.data.sources.read_hub", lambda hub, form: [{"prompt": hub.id, "response": "r"}])
    assert Source("absent.jsonl", {"train": 1.0}, hub=Hub("owner/name")).dialogs(None) == [ask("owner/name", "r")]
    assert len(Source(f"{root}/rows.jsonl", {"train": 1.0}).dialogs(None)) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"trian": 1.0}}, "no split 'trian'; .*Did you mean 'train'"),
        ({"splits": {}}, "must add up to 1"),
        ({"splits": {"train": 0.5, "test": 0.6}}, "must add up to 1"),
        ({"splits": {"train": 1.5, "test": -0.5}}, "must add up to 1"),
        ({"prompt": None, "answer": None}, "names no column"),
        ({"limit": 0}, "limit is 0"),
        ({"share": 0.0}, "share is 0.0"),
        ({"share": 1.5}, "share is 1.5"),
        ({"repeat": 0}, "repeat is 0"),
    ],
)
def test_a_source_that_makes_no_sense_is_a_user_error(options, message):
    with pytest.raises(UserError, match=message):
        Source(**{"path": "rows.jsonl", "splits": {"train": 1.0}, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "promt"}, "data source rows.jsonl: no column 'promt'; .*Did you mean 'prompt'"),
        ({"where": {"kidn": "a"}}, "data source rows.jsonl: no column 'kidn'; .*Did you mean 'kind'"),
        ({"where": {"kind": "z"}}, "no row is left after its filters"),
        ({"at_least": 99}, "no row is left after its filters"),
        ({"messages": "promt"}, "data source rows.jsonl: no column 'promt'; .*Did you mean 'prompt'"),
        ({"answer": "kidn", "words": {"a": "yes"}}, "data source rows.jsonl: no column 'kidn'; .*Did you mean 'kind'"),
    ],
)
def test_columns_and_filters_that_do_not_fit_the_rows_are_user_errors(root, options, message):
    with pytest.raises(UserError, match=message):
        Source("rows.jsonl", {"train": 1.0}, **options).dialogs(root)


def test_a_root_that_is_no_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"data\.root=.*absent is not a folder"):
        Source("rows.jsonl", {"train": 1.0}).dialogs(str(tmp_path / "absent"))


def test_a_corpus_without_sources_or_with_two_kinds_of_safe_answers_is_a_user_error():
    with pytest.raises(UserError, match="corpus 'c' has no source"):
        Corpus("c")
    with pytest.raises(UserError, match="both refusals and safe sources"):
        Corpus("c", safe={"rows": Source("rows.jsonl", {"train": 1.0})}, refusals=Refusals())


def test_a_corpus_is_built_from_yaml(root):
    config = OmegaConf.create(f"""
        _target_: immunax.data.corpora.Corpus
        name: mine
        root: {root}
        retain:
          rows: {{_target_: immunax.data.sources.Source, path: rows.jsonl, splits: {{train: 0.9, test: 0.1}}}}
          turns:
            _target_: immunax.data.sources.Source
            path: turns.csv
            splits: {{train: 1}}
            prompt: [q, more]
            answer: a
    """)
    splits = described(config).splits()
    assert splits.train.retain[-1] == replace(ask("sum\n\n1 2", "3"), topic="turns")
    assert len(everything(splits.train)) + len(everything(splits.test)) == 61


def test_a_share_keeps_the_same_prompts_of_streams_that_are_paired_and_never_fewer_than_64(tmp_path):
    rows = ({"prompt": f"p {n // 2}", "response": f"r {n}"} for n in range(600))
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole, root = Source("many.jsonl", {"train": 1.0}), str(tmp_path)
    dialogs, some = whole.dialogs(root), replace(whole, share=0.5).dialogs(root)
    assert [each for each in dialogs if each in some] == some
    assert len(some) == 300
    assert len({each.question for each in some}) == 150
    assert len(replace(whole, share=1e-4).dialogs(root)) == 128
    assert set(replace(whole, share=1e-4).dialogs(root)) < set(some)


def test_a_source_may_stand_several_times_in_train_alone(root):
    source = Source("rows.jsonl", {"train": 0.5, "test": 0.5}, repeat=3)
    once, thrice = (
        Corpus("c", str(root), retain={"rows": each}).splits() for each in (replace(source, repeat=1), source)
    )
    assert sorted(thrice.train.retain, key=repr) == sorted(once.train.retain * 3, key=repr)
    assert thrice.test == once.test
