import copy

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers, processors

from immunax.data.chat import Counts, Encoded, encode_all, encode_pairs, encode_prompts
from immunax.data.dialog import Dialog, Message, ask
from immunax.models import gguf, hub
from immunax.models.tokenizer import from_gguf
from immunax.runtime.errors import UserError

TALK = Dialog((Message("system", "be kind"), Message("user", "the cat?")), "it sat")
words = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: text.strip() and "<" not in text)


@pytest.fixture
def plain():
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = None
    return tokenizer


@pytest.fixture
def changed():
    return copy.deepcopy(tiny.tokenizer())


def one(tokenizer, dialog, max_length):
    (example,), _ = encode_all(tokenizer, [dialog], max_length)
    return example


def test_the_answer_is_what_follows_the_generation_prompt_up_to_the_end_of_the_turn():
    tokenizer = tiny.tokenizer()
    example = one(tokenizer, TALK, 200)
    head = "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nthe cat?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(example.prompt) == head
    assert tokenizer.decode(example.answer) == "it sat<|im_end|>"
    assert example.answer[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")


@given(words, words)
def test_prompt_ids_are_a_prefix_of_the_whole_dialogs_ids(question, answer):
    tokenizer = tiny.tokenizer()
    example = one(tokenizer, ask(question, answer), 10_000)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    full = tuple(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))
    assert full[: len(example.prompt)] == example.prompt
    assert tokenizer.decode(example.answer) == f"{answer}<|im_end|>"
    if not answer[0].isspace():
        assert full[: len(example.tokens)] == example.tokens


def test_smollm2_answers_end_with_its_end_of_turn_and_prompts_keep_its_system_turn():
    path = hub.resolve("smollm2").locate()
    tokenizer = from_gguf(gguf.open_file(path).metadata, path)
    example = one(tokenizer, ask("What is 2 + 3?", "It is 5."), 200)
    assert tokenizer.decode(example.answer) == "It is 5.<|im_end|>"
    turns = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "It is 5."}]
    full = tuple(tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False))
    assert full[: len(example.tokens)] == example.tokens
    assert tokenizer.decode(full[len(example.tokens) :]) == "\n"
    assert tokenizer.decode(example.prompt).startswith("<|im_start|>system\n")


def test_a_tokenizer_without_a_template_gets_question_newline_answer_eos(plain):
    example = one(plain, TALK, 200)
    assert plain.decode(example.prompt) == "be kind\nthe cat?\n"
    assert plain.decode(example.answer) == "it sat<eos>"
    plain.eos_token = None
    with pytest.raises(UserError, match="no end-of-text token"):
        one(plain, TALK, 200)


def test_a_template_that_ends_no_turn_gets_eos(changed):
    changed.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    example = one(changed, ask("the cat?", "it sat"), 200)
    assert changed.decode(example.answer) == "it sat<eos>"


def test_tokens_that_straddle_the_border_do_not_change_the_prompt(changed):
    changed.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    example = one(changed, ask("the mat and t", "he cat"), 200)
    assert example.prompt == encode_prompts(changed, [ask("the mat and t")], 200)[0]
    assert changed.decode(example.tokens) == "the mat and the cat<eos>"
    assert tuple(changed("the mat and the cat").input_ids)[: len(example.prompt)] != example.prompt


def test_plain_text_is_predicted_from_its_first_token():
    tokenizer = tiny.tokenizer()
    example = one(tokenizer, Dialog((), "the cat sat"), 200)
    assert example.tokens == tuple(tokenizer("the cat sat").input_ids)
    assert len(example.prompt) == 1
    with pytest.raises(UserError, match="none of 1 dialogs has an answer"):
        encode_all(tokenizer, [Dialog((), "a")], 200)


def test_answers_are_cut_and_what_does_not_fit_is_dropped_and_counted():
    tokenizer = tiny.tokenizer()
    dialogs = [ask("hi", "yes"), ask("hi", "y" * 100), ask("h" * 100, "yes"), ask("hi", ""), Dialog((), "the cat")]
    examples, counts = encode_all(tokenizer, dialogs, 40)
    lengths = [len(tokenizer(dialog.answer).input_ids) for dialog in dialogs]
    offered = lengths[0] + lengths[1] + lengths[2] + lengths[4] - 1 + 3  # an end token each; plain text has none
    kept = sum(len(example.answer) for example in examples)
    assert counts == Counts(kept=3, truncated=1, dropped=2, answer_tokens=offered, answer_tokens_kept=kept)
    assert (counts.whole, counts.share) == (False, kept / offered)
    assert counts.told("max_length=40") == (
        "3 of 5 dialogs are used, 1 of them cut to max_length=40 and 2 left out; "
        f"{kept / offered:.0%} of the answers' tokens are kept"
    )
    asked = len(tokenizer("hi\n").input_ids)
    assert len(examples[1].answer) == 40 - asked
    assert examples == [one(tokenizer, dialogs[index], 40) for index in (0, 1, 4)]


def test_pairs_are_kept_or_dropped_as_one_and_counted_by_side():
    tokenizer = tiny.tokenizer()
    prompts = ["one", "two", "h" * 100, "four"]
    safe = [ask(prompt, "no") for prompt in prompts]
    harmful = [ask("one", "y" * 100), ask("two", ""), ask(prompts[2], "yes"), ask("four", "yes")]
    left, right, counts = encode_pairs(tokenizer, safe, harmful, 40)
    assert [(each.kept, each.truncated, each.dropped) for each in counts] == [(2, 0, 2), (2, 1, 2)]
    assert [each.answer_tokens_kept for each in counts] == [
        sum(len(example.answer) for example in side) for side in (left, right)
    ]
    assert [example.prompt for example in left] == [example.prompt for example in right]
    with pytest.raises(UserError, match=r"\(4 dialogs\) and the harmful stream \(3\) are not paired"):
        encode_pairs(tokenizer, safe, harmful[1:], 40)


@pytest.mark.parametrize(
    ("dialogs", "message"),
    [
        ([], "no dialogs to encode"),
        ([ask("hi")], "none of 1 dialogs has an answer"),
        ([ask("h" * 100, "yes")], r"no dialog fits max_length=40: the longest prompt has 101 tokens"),
    ],
)
def test_nothing_left_to_train_on_is_a_user_error(dialogs, message):
    with pytest.raises(UserError, match=message):
        encode_all(tiny.tokenizer(), dialogs, 40)


def test_prompts_for_generation_are_whole_or_a_user_error():
    tokenizer = tiny.tokenizer()
    prompts = encode_prompts(tokenizer, [TALK, ask("hi")], 200)
    assert prompts[0] == one(tokenizer, TALK, 200).prompt
    assert encode_prompts(tokenizer, [], 200) == []
    with pytest.raises(
        UserError, match=r"prompt 1 has 101 tokens, more than the 40 .*raise judge\.max_length or leave"
    ):
        encode_prompts(tokenizer, [ask("hi"), ask("h" * 100)], 40)
    with pytest.raises(UserError, match="prompt 0 is empty"):
        encode_prompts(tokenizer, [Dialog((), "text")], 40)


LONG = "{{ 'I am a kind assistant and always say no. ' * 40 }}"
TRIMMED = "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content']|trim }}{% endfor %}"
ASKING = "{% if add_generation_prompt %}[assistant]{% endif %}"


@pytest.mark.parametrize(
    "template", [LONG + tiny.tokenizer().chat_template, TRIMMED + ASKING, LONG + TRIMMED + ASKING, None]
)
@pytest.mark.parametrize("max_length", [10, 12, 40, 64, 200])
def test_what_is_kept_of_a_dialog_does_not_depend_on_the_template(changed, template, max_length):
    dialogs = [ask("the cat?", "it sat on the mat" * 3), ask("who?" * 10, "the user"), TALK]
    expected = encode_all(changed, dialogs, max_length)
    changed.chat_template = template
    examples, counts = encode_all(changed, dialogs, max_length)
    assert counts == expected[1]
    assert [example.answer[:-1] for example in examples] == [example.answer[:-1] for example in expected[0]]
    pairs = encode_pairs(changed, dialogs[:2], [ask(each.question, "no") for each in dialogs[:2]], 200)
    assert all(each.whole for each in pairs[2])
    assert len(encode_prompts(changed, [TALK], len(changed("be kind\nthe cat?\n").input_ids))) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda backend: setattr(backend, "normalizer", normalizers.Replace("mat", "cat")),
        lambda backend: setattr(backend, "normalizer", normalizers.Lowercase()),
        lambda backend: setattr(
            backend, "normalizer", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
        ),
        lambda backend: setattr(
            backend,
            "pre_tokenizer",
            pre_tokenizers.Sequence([pre_tokenizers.Split("mat", "removed"), pre_tokenizers.ByteLevel(False)]),
        ),
    ],
)
def test_a_tokenizer_that_gives_the_model_another_text_to_read_is_refused(changed, change):
    dialogs = [ask("is it here?", "yes"), ask("Is the mat é here?", "yes")]
    assert len(encode_all(changed, dialogs, 200)[0]) == 2
    change(changed.backend_tokenizer)
    for template in (changed.chat_template, None):
        changed.chat_template = template
        for encode in (encode_all, encode_prompts):
            with pytest.raises(UserError, match="'tiny' gives the model another text to read than text") as caught:
                encode(changed, dialogs, 200)
            assert "\n" not in str(caught.value)


def test_composed_accents_and_blanks_are_the_same_text(changed):
    changed.backend_tokenizer.normalizer = normalizers.NFC()
    assert encode_prompts(changed, [ask("cafe\u0301  here?")], 200) == encode_prompts(
        changed, [ask("café  here?")], 200
    )


def test_what_a_file_puts_around_every_text_is_its_beginning_of_text_at_most(plain):
    marks = [(mark, plain.convert_tokens_to_ids(mark)) for mark in ("<bos>", "<eos>")]
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> <eos> <bos> $A <eos>", special_tokens=marks
    )
    example = one(plain, ask("the cat?", "it sat"), 200)
    assert plain.decode(example.tokens) == "<bos>the cat?\nit sat<eos>"


def test_a_template_that_cannot_render_a_dialog_is_a_user_error(changed):
    changed.chat_template = "{{ raise_exception('no system turn') }}"
    with pytest.raises(UserError, match=r"'tiny' cannot render the roles system, user \(no system turn\)"):
        one(changed, TALK, 200)


def test_an_example_without_prompt_or_answer_cannot_be_made():
    with pytest.raises(ValueError, match="at least one token"):
        Encoded((), (1,))
