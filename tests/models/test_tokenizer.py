"""The tokenizer rebuilt from a GGUF file's vocabulary and merges."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from immunax.models import gguf, hub, tokenizer
from immunax.runtime.errors import UserError

BYTES = sorted(ByteLevel.alphabet())
SPECIAL = ["<|end|>", "<bos>"]
MERGES = ["1 2", "12 3", "123 4", "a b", "ab c", "Ġ a", "' s", "' S"]


def metadata(pre: str, **extra) -> dict:
    tokens = [*SPECIAL, "<user>", *BYTES, *(merge.replace(" ", "") for merge in MERGES), "whole"]
    kinds = [3, 3, 4, *[1] * (len(tokens) - 3)]
    fields = {"model": "gpt2", "pre": pre, "tokens": tokens, "token_type": kinds, "merges": MERGES}
    fields |= {"bos_token_id": 1, "eos_token_id": 0, "padding_token_id": 0, **extra}
    return {f"tokenizer.ggml.{key}": value for key, value in fields.items()}


def build(pre: str, **extra):
    return tokenizer.from_gguf(metadata(pre, **extra), Path("model.gguf"))


def pieces(pre: str, text: str) -> list[str]:
    made = build(pre, add_bos_token=False)
    return made.convert_ids_to_tokens(made(text).input_ids)


@pytest.fixture(scope="module")
def smollm2():
    path = hub.resolve("smollm2").locate()
    return tokenizer.from_gguf(gguf.open_file(path).metadata, path)


@pytest.mark.parametrize(
    ("pre", "digits"),
    [
        ("gpt-2", ["1234"]),
        ("smollm", ["1", "2", "3", "4"]),
        ("llama-bpe", ["123", "4"]),
        ("qwen2", ["1", "2", "3", "4"]),
    ],
)
def test_each_rule_keeps_as_many_digits_together_as_its_model(pre, digits):
    assert pieces(pre, "1234") == digits


def test_only_the_later_rules_cut_contractions_of_any_case():
    assert pieces("gpt-2", "x's") == ["x", "'s"]
    assert pieces("gpt-2", "x'Sab") == ["x", "'", "S", "ab"]
    assert pieces("qwen2", "x'Sab") == ["x", "'S", "ab"]


def test_the_leading_space_of_a_word_stays_with_it():
    assert pieces("gpt-2", " a 12") == ["Ġa", "Ġ", "12"]
    assert pieces("smollm", " a 12") == ["Ġa", "Ġ", "1", "2"]


def test_llama_3_takes_whole_words_of_the_vocabulary_before_any_merge():
    assert pieces("llama-bpe", "whole") == ["whole"]
    assert pieces("qwen2", "whole") == list("whole")


def test_llama_3_starts_with_the_beginning_token_unless_the_file_says_no():
    assert build("llama-bpe")("a").input_ids[0] == 1
    assert build("llama-bpe", add_bos_token=False)("a").input_ids[0] != 1
    assert build("qwen2")("a").input_ids[0] != 1


def test_qwen_composes_characters_first():
    assert build("qwen2")("e\u0301").input_ids == build("qwen2")("\u00e9").input_ids
    assert build("gpt-2")("e\u0301").input_ids != build("gpt-2")("\u00e9").input_ids


def test_only_control_tokens_are_left_out_of_decoded_text():
    made = build("gpt-2")
    ids = made("a<|end|><user>b").input_ids
    assert made.convert_ids_to_tokens(ids) == ["a", "<|end|>", "<user>", "b"]
    assert made.decode(ids, skip_special_tokens=True) == "a<user>b"


@pytest.mark.parametrize("pre", list(tokenizer.PRE_TOKENIZERS))
@given(text=st.text(max_size=40).filter(lambda text: not any(token in text for token in SPECIAL)))
def test_any_text_is_encoded_and_decoded_again(pre, text):
    made = MADE[pre]
    expected = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
    assert made.decode(made(text).input_ids, skip_special_tokens=False) == expected


MADE = {pre: build(pre, add_bos_token=False) for pre in tokenizer.PRE_TOKENIZERS}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "llama"}, "tokenizer 'llama' is not supported"),
        ({"pre": "quen2"}, "pre-tokenizer 'quen2' .*Did you mean 'qwen2'"),
        ({"pre": None}, "pre-tokenizer None"),
        ({"merges": None}, "merges is missing"),
        ({"merges": ["x notthere"]}, "do not fit together"),
        ({"bos_token_id": 10**6}, "special token id 1000000"),
    ],
)
def test_a_tokenizer_that_cannot_be_rebuilt_is_refused(change, named):
    fields = metadata("gpt-2") | {f"tokenizer.ggml.{key}": value for key, value in change.items()}
    with pytest.raises(UserError, match=named) as caught:
        tokenizer.from_gguf(fields, Path("model.gguf"))
    assert "\n" not in str(caught.value)


def test_smollm2_has_the_ids_of_its_published_tokenizer(smollm2):
    assert len(smollm2) == 49152
    assert smollm2.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [0, 1, 2]
    assert (smollm2.bos_token, smollm2.eos_token, smollm2.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    assert smollm2("Hello, world!").input_ids == [19556, 28, 905, 17]
    assert smollm2(" 2024").input_ids == [216, 34, 32, 34, 36]


@pytest.mark.parametrize(
    "text",
    [
        "It's 3.14159, isn't it?  Two  spaces,\n\na blank line\tand a tab. ",
        "def f(x):\n    return x ** 2  # 100%\n",
        "naïve café, Ωμέγα, 你好世界, العربية, हिन्दी, 🙂👩‍🔬",
        "<|im_start|>user\nHi<|im_end|>\n",
    ],
)
def test_smollm2_decodes_what_it_encoded(smollm2, text):
    assert smollm2.decode(smollm2(text).input_ids) == text


def test_smollm2_s_chat_template_adds_its_system_prompt(smollm2):
    text = smollm2.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert smollm2(text).input_ids.count(1) == 3


@pytest.mark.parametrize("first", ["a b", "x:y", " ", "$A", "$B", ""])
def test_a_first_token_that_a_template_would_read_as_its_own_words_is_refused(first):
    changed = metadata("llama-bpe")
    changed["tokenizer.ggml.tokens"][1] = first
    with pytest.raises(UserError, match=r"its first token .* is no marker"):
        tokenizer.from_gguf(changed, Path("model.gguf"))
