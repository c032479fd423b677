import copy

import pytest
import tiny
import tiny_model
from tokenizers import normalizers

from immunax.data.chat import encode_all, encode_prompts
from immunax.data.dialog import Dialog, Message, ask
from immunax.data.ends import stop_tokens
from immunax.models import hub, speech, weights
from immunax.models.hub import ModelSource
from immunax.runtime.errors import UserError

SHOUT = (
    "{% for m in messages %}{{ '!' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ loud|default('?') }}{% endif %}"
)


@pytest.fixture
def several():
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = {"chat": tiny.tokenizer().chat_template, "shout": SHOUT}
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("speech") / "model")


def asked(tokenizer):
    return tokenizer.decode(encode_prompts(tokenizer, [ask("the cat?")], 100)[0])


def test_of_several_templates_one_is_chosen_by_name(several):
    with pytest.raises(
        UserError, match=r"'tiny' has several chat templates \(chat, shout\) .*model\.chat_template=NAME"
    ):
        speech.set_up(several, None, {})
    speech.set_up(several, "shout", {})
    assert asked(several) == "!the cat??"
    speech.set_up(several, "chat", {})
    assert asked(several) == asked(tiny.tokenizer())
    with pytest.raises(
        UserError, match=r"chat_template=shoot: expected a template of the tokenizer .*Did you mean 'shout'\?"
    ):
        speech.set_up(several, "shoot", {})


def test_a_template_file_takes_the_place_of_the_models_own_and_is_exported(folder, tmp_path):
    file = tmp_path / "shout.jinja"
    file.write_text(SHOUT)
    plain = ModelSource(str(folder)).load()
    changed = ModelSource(str(folder), chat_template=str(file), template_args={"loud": "!!"}).load()
    assert asked(changed.tokenizer) == "!the cat?!!"
    assert changed.digests.keys() - plain.digests.keys() == {"chat template"}
    hub.export(tmp_path / "out", changed, changed.params)
    assert asked(ModelSource(str(tmp_path / "out")).load().tokenizer) == "!the cat??"
    with pytest.raises(UserError, match="expected alpaca, question_answer, or a readable text file"):
        ModelSource(str(folder), chat_template=str(tmp_path)).load()


def test_a_models_speech_is_known_by_its_tokenizer_and_its_template_whatever_files_they_lie_in(folder, tmp_path):
    loaded = ModelSource(str(folder)).load()
    hub.export(tmp_path / "again", loaded, loaded.params)
    own = speech.digests(loaded.tokenizer)
    assert speech.digests(ModelSource(str(tmp_path / "again")).load().tokenizer) == own
    other = copy.deepcopy(loaded.tokenizer)
    other.chat_template = None
    assert speech.digests(other) == {**own, "template": None}
    other.chat_template = SHOUT
    assert speech.digests(other)["template"] not in (None, own["template"])
    other.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert speech.digests(other)["tokenizer"] != own["tokenizer"]


def test_an_argument_that_the_template_does_not_read_is_refused(several):
    with pytest.raises(UserError, match=r"template_args\.lound: .*reads no such argument\. Did you mean 'loud'\?"):
        speech.set_up(several, "shout", {"lound": 1})
    with pytest.raises(UserError, match=r"template_args\.messages: is set for every dialog"):
        speech.set_up(several, "shout", {"messages": []})


@pytest.mark.parametrize(("value", "expected"), [(1, (1,)), ([1, 3], (1, 3)), ([1, 7], (1,)), (None, ()), ([], ())])
def test_end_tokens_of_the_generation_configuration_stop_answers_and_are_exported(folder, tmp_path, value, expected):
    original = weights.read_json(folder / "config.json")["eos_token_id"]
    changed = tmp_path / "changed"
    hub.export(changed, ModelSource(str(folder)).load(), ModelSource(str(folder)).load().params)
    weights.write_json(changed / "generation_config.json", {"eos_token_id": value, "top_k": 5})
    loaded = ModelSource(str(changed)).load()
    assert stop_tokens(loaded.tokenizer) == tuple(sorted({2, original, *expected}))
    hub.export(tmp_path / "out", loaded, loaded.params)
    assert weights.read_json(tmp_path / "out" / "generation_config.json") == {"eos_token_id": value, "top_k": 5}


@pytest.mark.parametrize("value", ["</s>", [2, "</s>"], -1, 1.5, True])
def test_an_end_token_that_is_no_id_is_refused(several, value):
    with pytest.raises(UserError, match=r"eos_token_id=.*expected a token's id or a list"):
        speech.stop_at(several, {"eos_token_id": value})


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("alpaca", "### Instruction:\nthe cat?\n\n### Response:\n", "be kind\n\n"),
        ("question_answer", "Question: the cat?\nAnswer:\n", "be kind\n"),
    ],
)
def test_prompt_formats_of_published_work_are_known_by_name(name, asked, told):
    tokenizer = copy.deepcopy(tiny.tokenizer())
    speech.choose_template(tokenizer, name)
    for system in ((), (Message("system", "be kind"),)):
        dialog = Dialog((*system, Message("user", "the cat?")), "it sat")
        (example,), counts = encode_all(tokenizer, [dialog], 400)
        assert counts.whole
        text = tokenizer.decode(example.prompt)
        assert text.endswith(asked)
        assert text.startswith(told) or not system
        assert tokenizer.decode(example.answer) == f"it sat{tokenizer.eos_token}"
