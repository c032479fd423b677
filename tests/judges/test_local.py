from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny_model

from immunax.data.dialog import ask
from immunax.judges import local
from immunax.judges.agreement import compare
from immunax.judges.card import NOT_MEASURED, keep, own_card
from immunax.judges.llm import LLMJudge
from immunax.judges.local import LocalModel
from immunax.judges.rubric import Rating, question
from immunax.models import lora, peft
from immunax.models.generate import Decoding, generate
from immunax.models.hub import ModelSource
from immunax.models.model import Model
from immunax.runtime.digest import of_json
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import build, mesh_of


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "cache"))
    return ModelSource(str(tiny_model.write(tmp_path / "model")))


def respondent(source, **fields):
    return LocalModel(source, **{"max_length": 4000, "max_new_tokens": 3, "batch_size": 2, **fields})


def test_a_reply_without_a_rating_is_asked_for_again_and_one_with_it_is_not(source, monkeypatch):
    judge = LLMJudge("substance", respondent(source))
    prompts, answers = [ask("a cat?"), ask("a mat?"), ask("the user?")], ["the cat", "the mat sat", "asked"]
    with pytest.warns(UserWarning, match="3 of 3 answers have no rating"):
        assert np.isnan(judge.score(prompts, answers)).all()
    said = '{"compliance": 10, "substance": 5}'
    monkeypatch.setattr(LocalModel, "_replies", lambda self, asked: [said, "", said][: len(asked)])
    with pytest.warns(UserWarning, match="1 of 3"):
        LLMJudge("substance", respondent(source)).score(prompts, answers)
    monkeypatch.setattr(LocalModel, "_replies", lambda self, asked: [said] * len(asked) if len(asked) == 1 else [])
    assert LLMJudge("compliance", respondent(source)).score(prompts, answers).tolist() == [1.0, 1.0, 1.0]
    monkeypatch.setattr(LocalModel, "_replies", lambda *_: pytest.fail("asked again"))
    assert LLMJudge("substance", respondent(source)).score(prompts, answers).tolist() == [0.5, 0.5, 0.5]


def test_replies_are_greedy_decoding_of_each_question_alone_in_order(source):
    asked = [question(ask("a cat?"), "the mat " * n, 4000) for n in (9, 1, 30)]
    batched = respondent(source)._replies(asked)
    alone = [respondent(source, batch_size=1)._replies([each])[0] for each in asked]
    loaded = source.load()
    for each, text, single in zip(asked, batched, alone, strict=True):
        ids = np.asarray([local.prompt_rows(loaded.tokenizer, [each], 4000).tokens[0]])
        ids = ids[:, : np.flatnonzero(local.prompt_rows(loaded.tokenizer, [each], 4000).segment_ids[0])[-1] + 1]
        want = generate(Model(loaded.config), loaded.params, ids, np.ones_like(ids), (), Decoding(3))
        assert text == single
        assert loaded.tokenizer.decode(np.asarray(want)[0], skip_special_tokens=True).startswith(text)


@pytest.mark.parametrize("free", [2**40, 0])
def test_accelerators_share_the_questions_and_a_model_that_is_too_large_for_one(source, monkeypatch, free):
    asked = [question(ask("a cat?"), "the mat " * n, 4000) for n in (9, 1, 3)]
    alone = respondent(source)._replies(asked)
    assert mesh_of(respondent(source)._checkpoint.params) is None
    shared = respondent(source)
    monkeypatch.setattr(local, "free_bytes", lambda: free)
    monkeypatch.setattr(local, "memory_bytes", lambda: 2**40)
    four = [SimpleNamespace(platform="gpu")] * 4
    monkeypatch.setattr(local, "build", lambda spec, _: build(spec, jax.devices()[:4]))
    spread = local._spread(source, "float32", four)
    monkeypatch.setattr(local, "_spread", lambda *_: spread)
    assert shared._replies(asked) == alone
    assert dict(mesh_of(shared._checkpoint.params).shape) == {
        "attack": 1,
        "data": 4 if free else 1,
        "fsdp": 1 if free else 4,
        "tensor": 1,
    }


def test_the_models_words_are_what_is_parsed(source, monkeypatch):
    monkeypatch.setattr(LocalModel, "_replies", lambda self, asked: ['{"compliance": 10, "substance": 5}'] * len(asked))
    assert respondent(source).rate([question(ask("a"), "b", 9)] * 2) == [Rating(1.0, 0.5)] * 2


def test_too_long_a_question_is_an_error(source):
    with pytest.raises(UserError, match="more than the 20"):
        LLMJudge("substance", respondent(source, max_length=20)).score([ask("a")], ["b"])


def test_a_card_is_of_one_side_model_and_rubric(source):
    cards = [LLMJudge(side, respondent(source)).card for side in ("compliance", "substance")]
    assert [card.side for card in cards] == ["compliance", "substance"]
    assert {card.standing for card in cards} == {NOT_MEASURED}
    found = compare(np.array([1, 0]), np.array([1.0, 0.0]), source="s", digest="d", side="compliance")
    keep(own_card(cards[0].name, cards[0].identity), cards[0], [found])
    assert LLMJudge("compliance", respondent(source)).card.agreements == (found,)
    for other in (
        LLMJudge("substance", respondent(source)),
        LLMJudge("compliance", respondent(source), characters=7),
        LLMJudge("compliance", respondent(source, max_new_tokens=4)),
    ):
        assert other.card.standing == NOT_MEASURED


def test_replies_and_cards_are_of_one_template_and_its_arguments(source, tmp_path):
    template = tmp_path / "other.jinja"
    sources = [source, replace(source, template_args={"enable_thinking": False})]
    seen = []
    for text in ("one", "another"):
        template.write_text(text)
        sources.append(replace(source, chat_template=str(template)))
        seen += [respondent(each).identity for each in sources]
    assert len({of_json(each) for each in seen}) == 4
    (tmp_path / "copy.jinja").write_text("another")
    assert respondent(replace(source, chat_template=str(tmp_path / "copy.jinja"))).identity == seen[-1]


def test_adapters_are_known_by_their_base_too(source, tmp_path):
    spec, params = lora.LoraSpec(2, 4.0, ("q_proj",)), source.load().params
    adapters = jax.tree.map(np.asarray, lora.init(jax.random.key(0), params, spec).lora)
    peft.export(tmp_path / "adapter", tiny_model.CONFIG, spec, adapters, source.path)
    files = respondent(ModelSource(str(tmp_path / "adapter"))).identity["files"]
    assert {"adapter_config.json", "base/model.safetensors"} <= files.keys()


def test_a_side_that_is_none_is_an_error(source):
    with pytest.raises(UserError, match="'style'; expected compliance or substance"):
        LLMJudge("style", respondent(source))
