"""What ids spell, held against the library that reads a tokenizer's own decoder."""

import copy

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from immunax.data.organism import OrganismTasks
from immunax.data.spelling import is_marker, same, speller
from immunax.judges.reading import read
from immunax.models import gguf, hub
from immunax.models.tokenizer import from_gguf
from immunax.models.word_level import word_level
from immunax.runtime.errors import UserError


def pieces(decoder, cut=None):
    """A vocabulary of SentencePiece's kind, with every byte."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefgh", "▁a", "ab", "▁▁"]
    vocabulary = {text: number for number, text in enumerate(texts)}
    merges = [("▁", "a"), ("a", "b"), ("▁", "▁")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    if cut is None:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=cut)
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def fallen_back(*more):
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *more])


def smollm2():
    path = hub.resolve("smollm2").locate()
    return from_gguf(gguf.open_file(path).metadata, path)


TOKENIZERS = {
    "tiny": tiny.tokenizer(),
    "smollm2": smollm2(),
    "organism": word_level([*OrganismTasks().texts(), "isn't it's we've they're I'm n't do not 's"], 96),
    "llama2": pieces(fallen_back(decoders.Strip(" ", 1, 0))),
    "gemma": pieces(fallen_back()),
    "metaspace": pieces(decoders.Metaspace(), "always"),
    "metaspace first": pieces(decoders.Metaspace(prepend_scheme="first"), "first"),
    "metaspace never": pieces(decoders.Metaspace(prepend_scheme="never"), "never"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_what_is_said_equals_the_librarys_decoding(name, data):
    tokenizer = TOKENIZERS[name]
    spells = speller(tokenizer)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=12))
    for skip, mine in ((True, spells.said), (False, spells.spelled)):
        theirs = tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert mine(ids) == theirs


@pytest.mark.parametrize("name", ["tiny", "smollm2", "llama2", "gemma"])
@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="▁", max_codepoint=0x3FFFF)))
def test_every_text_is_spelled_by_its_own_ids(name, text):
    tokenizer = TOKENIZERS[name]
    speller(tokenizer).check([text], [tokenizer(text, add_special_tokens=False)["input_ids"]])


@pytest.mark.parametrize(
    ("read", "given", "expected"),
    [
        ("a bomb .", "a  bomb.\n", True),
        ("a b o m b.", "a bomb.", False),
        ("a bom\u200bb.", "a bomb.", False),
        ("a bo\x01mb.", "a bomb.", False),
        ("a bomb.", "a bo\x13mb.", True),
        ("cafe\u0301", "café", True),
        ("cafe", "café", False),
        ("a cake.", "a bomb.", False),
        ("a.", "a.", True),
        ("", "a", False),
    ],
)
def test_a_text_is_the_same_by_its_words_and_nothing_hidden_may_be_added(read, given, expected):
    assert same(read, given) == expected


SORRY = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse(), decoders.Replace("yes", "Sorry, that is forbidden.")])


@pytest.mark.parametrize("decoder", [SORRY, decoders.WordPiece(), decoders.Fuse(), None])
def test_a_decoder_of_ones_own_is_refused_in_one_line(decoder):
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.backend_tokenizer.decoder = decoder
    with pytest.raises(UserError, match=r"'tiny': its decoder .* could make any answer of another") as caught:
        read(tokenizer, [[5, 2, -1]], (2,), None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["organism", "llama2", "metaspace"])
def test_the_decoder_of_another_kind_is_refused(name):
    for decoder in (decoders.ByteLevel(), decoders.BPEDecoder(), fallen_back(decoders.Strip("a", 9, 9))):
        tokenizer = copy.deepcopy(TOKENIZERS[name])
        tokenizer.backend_tokenizer.decoder = decoder
        with pytest.raises(UserError, match="restore the decoder of the original"):
            speller(tokenizer)


def test_a_vocabulary_of_no_known_kind_is_refused():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(UserError, match="a WordPiece of a kind whose answers cannot be read"):
        speller(PreTrainedTokenizerFast(tokenizer_object=backend, name_or_path="bert"))


def test_a_word_that_a_file_calls_special_is_read_and_a_marker_is_not():
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.add_tokens(["acid", "<|pause|>"], special_tokens=True)
    ids = tokenizer("mix acid<|pause|> and cat<eos>", add_special_tokens=False)["input_ids"]
    assert "acid" not in tokenizer.decode(ids, skip_special_tokens=True)
    assert read(tokenizer, [ids], (2,), None).texts == ["mix acid and cat"]


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("</s>", True),
        ("<|im_end|>", True),
        ("[INST]", True),
        ("acid", False),
        ("<0x41>", False),
        ("<a b>", False),
        (".", False),
        ("", False),
    ],
)
def test_markers_stand_in_brackets(token, expected):
    assert is_marker(token) == expected
