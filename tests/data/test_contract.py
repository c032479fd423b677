"""One small template for every way in which public ones break the contract."""

import copy
import re

import pytest
import tiny

from immunax.data.chat import encode_all, encode_prompts
from immunax.data.dialog import Dialog, Message, ask
from immunax.data.ends import end_token, stop_tokens
from immunax.data.layout import render
from immunax.data.prompts import open_thought
from immunax.models.speech import SHIPPED
from immunax.runtime.errors import UserError

END = "<|im_end|>"
TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
SYSTEM = Dialog((Message("system", "be kind"), Message("user", "the cat?")), "it sat")
QWEN3 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{% set said = m['content'] %}{% set thought = '' %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\n<think>\n' + thought + '\n</think>\n\n' + said + '<|im_end|>\n' }}"
    "{% else %}"
    + TURN
    + "{% endif %}{% endfor %}"
    + ASK
    + "{% if add_generation_prompt and enable_thinking is defined "
    "and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
R1 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[user]' + m['content'] }}{% else %}"
    "{{ '[assistant]' + m['content'].split('</think>')[-1] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]<think>\n' }}{% endif %}"
)


def speaking(template, **arguments):
    """The tiny tokenizer with another template."""
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = template
    tokenizer.template_args = arguments
    return tokenizer


def example(tokenizer, dialog):
    """Prompt, answer and generation prompt as text."""
    (encoded,), _ = encode_all(tokenizer, [dialog], 10_000)
    (asked,) = encode_prompts(tokenizer, [dialog], 10_000)
    return tuple(map(tokenizer.decode, (encoded.prompt, encoded.answer, asked)))


def refused(tokenizer, dialog):
    """The one line that both ways of encoding end in."""
    lines = set()
    for encode in (encode_all, encode_prompts):
        with pytest.raises(UserError) as caught:
            encode(tokenizer, [dialog], 10_000)
        lines.add(str(caught.value))
    (line,) = lines
    assert "\n" not in line
    assert "'tiny'" in line
    assert "model.chat_template=FILE" in line
    return line


def test_a_template_that_drops_a_role_is_refused_by_the_roles_name():
    tokenizer = speaking(
        "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + ASK
    )
    assert "leaves out messages of the role 'system'" in refused(tokenizer, SYSTEM)
    assert example(tokenizer, ask("the cat?", "it sat"))[1] == f"it sat{END}"


def test_a_dropped_message_is_seen_although_its_text_stands_elsewhere():
    tokenizer = speaking(
        "{% for m in messages %}{% if m['role'] != 'system' %}" + TURN + "{% endif %}{% endfor %}" + ASK
    )
    hidden = Dialog((Message("system", "user"), Message("user", "user")), "it sat")
    assert "leaves out messages of the role 'system'" in refused(tokenizer, hidden)


LONG = "you are a kind assistant"


@pytest.mark.parametrize("question", [LONG, f"who said: {LONG}?", f"{LONG} {LONG}"])
def test_a_long_message_that_is_dropped_is_seen_although_a_later_one_quotes_it(question):
    tokenizer = speaking(
        "{% for m in messages %}{% if m['role'] != 'system' or m['content']|length < 12 %}"
        + TURN
        + "{% endif %}{% endfor %}"
        + ASK
    )
    assert "be kind" in example(tokenizer, SYSTEM)[0]
    dialog = Dialog((Message("system", LONG), Message("user", question)), "it sat")
    assert "does not keep the text of the" in refused(tokenizer, dialog)
    assert example(tiny.tokenizer(), dialog)[0].count(LONG) == 1 + question.count(LONG)


def test_a_template_may_put_the_systems_message_into_the_last_turn():
    tokenizer = speaking(
        "{% set ns = namespace(rule='') %}{% for m in messages %}{% if m['role'] == 'system' %}{% set ns.rule = m['content'] %}"
        "{% elif m['role'] == 'user' %}{{ '[INST] ' }}{% if loop.last or loop.index == messages|length - 1 and not "
        "add_generation_prompt %}{{ ns.rule + ' ' }}{% endif %}{{ m['content'] + '[/INST]' }}{% else %}"
        "{{ m['content'] + '<eos>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '' }}{% endif %}"
    )
    turns = (Message("system", "be kind"), Message("user", "the cat?"), Message("assistant", "it sat"))
    prompts = encode_prompts(tokenizer, [Dialog((*turns, Message("user", "and now?")), "")], 200)
    assert tokenizer.decode(prompts[0]) == "[INST] the cat?[/INST]it sat<eos>[INST] be kind and now?[/INST]"


@pytest.mark.parametrize("role", ["developer", "tool", "critic"])
def test_any_role_is_taken_that_the_template_renders_and_no_other(role):
    dialog = Dialog((Message(role, "be kind"), Message("user", "the cat?")), "it sat")
    known = speaking("{% for m in messages %}" + TURN + "{% endfor %}" + ASK)
    assert f"{role}\nbe kind" in example(known, dialog)[0]
    unknown = speaking(
        "{% for m in messages %}{% if m['role'] in ('user', 'assistant') %}" + TURN + "{% endif %}{% endfor %}" + ASK
    )
    assert f"leaves out messages of the role {role!r}" in refused(unknown, dialog)


def test_a_template_for_content_parts_is_given_parts():
    body = "{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}"
    loop = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        + body
        + "{{ '<|im_end|>\n' }}{% endfor %}"
        + ASK
    )
    plain = example(tiny.tokenizer(), SYSTEM)
    assert example(speaking(loop), SYSTEM) == plain
    # One that joins the parts by itself cannot do with a text at all.
    assert example(speaking(loop.replace(body, "{{ m['content'][0].text + '' }}")), SYSTEM) == plain


def test_a_template_that_writes_no_message_is_refused():
    assert "leaves out messages of the role 'user'" in refused(
        speaking("{{ 'hello' }}" + ASK), ask("the cat?", "it sat")
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{{ m['content'] + 3 }}", "can only concatenate str"),
        ("{{ 1 // 0 }}", "division"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{{ m.content.nothing.here }}", "has no attribute"),
        ("{{ raise_exception('only users') }}", "only users"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_whatever_a_template_raises_is_one_line(body, reason):
    line = refused(speaking("{% for m in messages %}" + body + "{% endfor %}"), ask("the cat?", "it sat"))
    assert "cannot render the roles user" in line
    assert reason in line


@pytest.mark.parametrize("change", ["|replace('cat', 'dog')", "[:5]", "|upper"])
def test_a_template_that_changes_what_is_asked_is_refused(change):
    tokenizer = speaking(
        "{% for m in messages %}" + TURN.replace("m['content']", f"(m['content']{change})") + "{% endfor %}" + ASK
    )
    assert (
        "leaves out messages" in (line := refused(tokenizer, ask("is the cat here?", "it sat")))
        or "does not keep" in line
    )


def test_a_template_that_changes_the_answer_is_refused():
    body = "{{ m['role'] + m['content']|replace('sat', 'stood') }}"
    tokenizer = speaking(
        "{% for m in messages %}" + body + "{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
    )
    with pytest.raises(UserError, match=r"'tiny' does not keep the text of the assistant's answer \(dialog 1\)"):
        encode_all(tokenizer, [ask("how?", "it was"), ask("how?", "it sat")], 200)


def test_white_space_that_a_template_trims_is_no_change():
    tokenizer = speaking(
        "{% for m in messages %}" + TURN.replace("m['content']", "m['content']|trim") + "{% endfor %}" + ASK
    )
    assert example(tokenizer, ask("  the cat?\n", " it sat\n")) == example(tokenizer, ask("the cat?", "it sat"))


def test_the_role_header_of_a_template_without_generation_prompt_is_prompt():
    tokenizer = speaking("{% for m in messages %}" + TURN + "{% endfor %}")
    assert example(tokenizer, SYSTEM) == example(tiny.tokenizer(), SYSTEM)
    colons = speaking("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}")
    prompt, answer, asked = example(colons, ask("the cat?", "it sat"))
    assert prompt == asked == "user: the cat?\nassistant:"
    assert answer == " it sat<eos>"


def test_a_blank_before_the_answer_belongs_to_its_first_token():
    tokenizer = speaking(
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + ' <eos>' }}{% endif %}{% endfor %}"
    )
    prompt, answer, asked = example(tokenizer, ask("the cat?", "the mat"))
    assert prompt == asked == "[INST] the cat? [/INST]"
    assert answer == " the mat<eos>"


def test_a_thought_opened_by_the_generation_prompt_is_closed_before_a_given_answer():
    tokenizer = speaking(R1)
    assert example(tokenizer, ask("the cat?", "it sat")) == (
        "[user]the cat?[assistant]<think>\n\n</think>\n\n",
        f"it sat{END}",
        "[user]the cat?[assistant]<think>\n",
    )
    assert tokenizer.convert_tokens_to_ids(END) in stop_tokens(tokenizer)
    with pytest.raises(UserError, match="does not keep the text of the assistant's answer"):
        encode_all(tokenizer, [ask("the cat?", "<think>hm</think>it sat")], 200)


KEPT = R1.replace("m['content'].split('</think>')[-1]", "m['content']")
QWQ = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[user]' + m['content'] }}{% else %}"
    "{% set said = m['content'].split('</think>') %}{{ '[assistant]<think>\n' }}"
    "{% if said|length > 1 %}{{ said[0].split('<think>')[-1].strip() }}{% endif %}"
    "{{ '\n</think>\n\n' + said[-1].strip() + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]<think>\n' }}{% endif %}"
)


@pytest.mark.parametrize("template", [KEPT, QWQ])
@pytest.mark.parametrize("opening", ["<think>\n", "<think>", "  <think>\n", ""])
def test_a_thought_of_the_data_goes_on_where_the_generation_prompt_opened_it(template, opening):
    tokenizer = speaking(template)
    prompt, answer, asked = example(tokenizer, ask("the cat?", f"{opening}hmm\n</think>\n\nit sat"))
    assert prompt == asked == "[user]the cat?[assistant]<think>\n"
    assert answer == f"hmm\n</think>\n\nit sat{END}"
    prompt, answer, _ = example(tokenizer, ask("the cat?", "it sat"))
    assert prompt + answer == f"[user]the cat?[assistant]<think>\n\n</think>\n\nit sat{END}"


@pytest.mark.parametrize("content", ["", " ", "a", "use the <think> tag", "<think>"])
def test_whether_a_prompt_leaves_a_thought_open_is_the_templates_doing_alone(content):
    assert open_thought(speaking(R1), ask(content)) == "</think>"
    assert open_thought(tiny.tokenizer(), ask(content)) is None
    assert open_thought(speaking(None), ask(content)) is None


def test_an_empty_thought_of_the_template_is_not_scored():
    prompt, answer, asked = example(speaking(QWEN3), ask("the cat?", "it sat"))
    assert prompt == asked + "<think>\n\n</think>\n\n"
    assert answer == f"it sat{END}"
    quiet = example(speaking(QWEN3, enable_thinking=False), ask("the cat?", "it sat"))
    assert quiet == (prompt, answer, prompt)


def test_a_thought_in_the_data_is_part_of_the_answer():
    prompt, answer, asked = example(speaking(QWEN3), ask("the cat?", "<think>where?</think>it sat"))
    assert prompt == asked
    assert answer == f"<think>\nwhere?\n</think>\n\nit sat{END}"


def test_thoughts_of_earlier_turns_may_be_left_out_and_nothing_else():
    turns = (
        Message("user", "the cat?"),
        Message("assistant", "<think>where?</think>it sat"),
        Message("user", "and now?"),
    )
    prompt, *_ = example(speaking(R1), Dialog(turns, "it sits"))
    assert prompt.startswith("[user]the cat?[assistant]it sat<|im_end|>[user]and now?")
    tokenizer = speaking(R1.replace("split('</think>')[-1]", "split('</think>')[0]"))
    with pytest.raises(UserError, match="does not keep the text of the assistant's message"):
        encode_prompts(tokenizer, [Dialog(turns, "")], 200)


@pytest.mark.parametrize("answer", ["it sat", "it sat ", " it sat\n", "end"])
@pytest.mark.parametrize("end", ["", "\n", "###", "</s>", "<|im_end|>\n", "<|im_end|><eos>"])
def test_every_answer_ends_with_one_end_token(answer, end):
    tokenizer = speaking(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content']|trim + '" + end + "' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    expected = tokenizer.convert_tokens_to_ids(END) if end.startswith(END) else tokenizer.eos_token_id
    (encoded,), _ = encode_all(tokenizer, [ask("the cat?", answer)], 200)
    assert encoded.answer == (*tokenizer(answer.strip()).input_ids, expected)
    assert expected in stop_tokens(tokenizer)
    assert end_token(tokenizer, ask("the cat?")) == expected


@pytest.mark.parametrize("template", [tiny.tokenizer().chat_template, None])
@pytest.mark.parametrize("answer", ["{}", "it sat{}", "it{} sat"])
def test_an_answer_that_spells_a_token_which_ends_answers_is_refused_by_its_dialog(template, answer):
    tokenizer = speaking(template)
    for mark in ("<eos>", END) if template else ("<eos>",):
        given = [ask("how?", "it was"), ask("the cat?", answer.format(mark))]
        with pytest.raises(UserError, match=re.escape(f"dialog 1 holds '{mark}'")) as caught:
            encode_all(tokenizer, given, 200)
        assert "take it out of the text" in str(caught.value)
        assert encode_prompts(tokenizer, given, 200)


def test_a_template_whose_answers_go_elsewhere_serves_for_questions_alone():
    tokenizer = speaking("{{ messages[0]['content'] }}{% if add_generation_prompt %}open{% else %}shut{% endif %}")
    assert [tokenizer.decode(ids) for ids in encode_prompts(tokenizer, [ask("hi")], 20)] == ["hiopen"]
    with pytest.raises(UserError, match="leaves out the answer that the assistant gives"):
        encode_all(tokenizer, [ask("hi", "yes")], 20)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}{% if add_generation_prompt %}open{% endif %}"
    with pytest.raises(UserError, match="does not put the answer after its generation prompt"):
        encode_all(tokenizer, [ask("hi", "yes")], 20)


def test_stop_tokens_are_the_templates_the_tokenizers_and_the_configurations():
    tokenizer = speaking("{% for m in messages %}" + TURN + "{% endfor %}" + ASK)
    tokenizer.stop_ids = (1, 3)
    assert stop_tokens(tokenizer) == (1, 2, 3, tokenizer.convert_tokens_to_ids(END))


def test_ordinary_text_ends_no_answer_whatever_a_file_calls_it():
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_tokens(["mix"], special_tokens=True)
    words = tokenizer.convert_tokens_to_ids(["mix", "Ġt", "."])
    tokenizer.stop_ids = tuple(words)
    assert stop_tokens(tokenizer) == (2, tokenizer.convert_tokens_to_ids(END))
    tokenizer.chat_template, tokenizer.eos_token = None, "mix"
    with pytest.raises(UserError, match="no end-of-text token to end an answer; set eos_token, to a marker"):
        encode_all(tokenizer, [ask("the cat?", "it sat")], 200)


@pytest.mark.parametrize("template", [QWEN3, R1, *(path.read_text() for path in SHIPPED.values())])
@pytest.mark.parametrize("prompt", [False, True])
def test_a_template_renders_in_its_child_as_transformers_renders_it(template, prompt):
    tokenizer = speaking(template, enable_thinking=False)
    turns = [("user", "the cat?\n"), ("assistant", "<think>hm</think> it sat é")]
    messages = [{"role": role, "content": content} for role, content in turns]
    theirs = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=prompt, enable_thinking=False
    )
    assert render(tokenizer, turns, False, prompt=prompt) == theirs


@pytest.mark.slow
def test_a_template_without_an_end_is_one_line_in_bounded_time():
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    assert "takes more than 2 seconds" in refused(speaking(endless), ask("the cat?", "it sat"))
