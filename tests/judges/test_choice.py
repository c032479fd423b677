import bz2
import io
import tarfile

import numpy as np
import pytest
import small
import tiny
import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from immunax.data.choices import MMLU, FromDialogs, HellaSwag, MultipleChoice
from immunax.data.dialog import Split, Splits, ask
from immunax.judges.choice import accuracy, quiz
from immunax.models.model import Model
from immunax.runtime.errors import UserError

MODEL = Model(tiny_model.CONFIG)
ITEMS = [
    MultipleChoice("the cat sat on", ("the mat", "a user", "how it was that"), 0),
    MultipleChoice("the user asked", ("the assistant", "mat", "on"), 1),
    MultipleChoice("the system knew", ("it", "the answer and the answer", "cat"), 2),
]


def weights():
    import jax

    return jax.tree.map(lambda leaf: leaf * 6 if leaf.ndim > 1 else leaf, jax.jit(MODEL.init)(jax.random.key(5)))


def test_choices_are_compared_by_the_likelihood_of_their_tokens_after_the_context():
    params = weights()
    found = accuracy(MODEL, params, quiz(tiny.tokenizer(), ITEMS, 4, 64))
    for place, item in enumerate(ITEMS):
        sums = []
        for choice in item.choices:
            before = tiny.tokenizer()(item.context, add_special_tokens=False)["input_ids"]
            whole = tiny.tokenizer()(f"{item.context} {choice}", add_special_tokens=False)["input_ids"]
            logits = np.asarray(small.plain_logits(MODEL, params, whole), np.float64)
            logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            sums.append(sum(logs[at - 1, whole[at]] for at in range(len(before), len(whole))))
        assert found.acc[place] == float(np.argmax(sums) == item.answer)
        lengths = [len(choice) for choice in item.choices]
        assert found.acc_norm[place] == float(np.argmax(np.divide(sums, lengths)) == item.answer)


def test_a_model_that_is_not_finite_solves_nothing_and_a_long_context_loses_its_beginning():
    import jax

    spoiled = jax.tree.map(lambda leaf: leaf * np.nan, weights())
    found = accuracy(MODEL, spoiled, quiz(tiny.tokenizer(), ITEMS, 4, 64))
    assert not found.acc.any()
    assert not found.acc_norm.any()
    cut = quiz(tiny.tokenizer(), ITEMS[:1], 4, 8).batches
    assert cut.segment_ids.astype(bool).sum(axis=-1).max() == 8
    with pytest.raises(UserError, match=r"raise judge\.max_length"):
        quiz(tiny.tokenizer(), ITEMS, 4, 2)


def test_a_token_that_spans_context_and_choice_takes_nothing_from_the_choice():
    # Words are not split here, so that "sat" and "he" share the token "t h".
    tokens = ["<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "tĠ", "tĠh"]
    rules = models.BPE({token: place for place, token in enumerate(tokens)}, [("t", "Ġ"), ("tĠ", "h")])
    made = Tokenizer(rules)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<eos>")
    item = MultipleChoice("the cat sat", ("he mat", "he cat sat"), 0)
    whole = tokenizer("the cat sat he mat", add_special_tokens=False)["input_ids"]
    before = tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
    assert whole[: len(before)] != before
    asked = quiz(tokenizer, [item], 4, 64).batches
    for row, choice in enumerate(item.choices):
        labels = asked.answer_label[0, row][asked.answer_weight[0, row] > 0]
        assert tokenizer.decode(labels) == f" {choice}"
        first = asked.answer_index[0, row, 0]
        assert tuple(asked.tokens[0, row, : first + 1]) == tuple(before)


def test_items_out_of_dialogs_hold_the_right_answer_among_others_in_an_order_of_the_seed():
    retain = tuple(ask(f"what is {i}", f"it is {i}") for i in range(8))
    splits = Splits(Split(), test=Split(retain=retain))
    items = FromDialogs(count=5).items(splits)
    assert [item.choices[item.answer] for item in items] == [dialog.answer for dialog in retain[:5]]
    assert all(len(set(item.choices)) == 4 for item in items)
    assert len({item.answer for item in items}) > 1
    assert FromDialogs(count=5, seed=1).items(splits) != items
    assert quiz(tiny.tokenizer(), items, 8, 128).batches.tokens.shape[1] == 8
    with pytest.raises(UserError, match="4 different answers"):
        FromDialogs().items(Splits(Split(), test=Split(retain=retain[:3])))


def test_hellaswag_and_mmlu_are_read_from_their_archives(tmp_path):
    text = "a man [title] sits\n2\nup [x] now\ndown\non it\noff\n" * 3
    (tmp_path / "h.bz2").write_bytes(bz2.compress(text.encode()))
    items = HellaSwag(str(tmp_path / "h.bz2"), count=2).items(Splits(Split()))
    assert items == (MultipleChoice("a man. sits", ("up now", "down", "on it", "off"), 2),) * 2
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        for name in ("test/a.csv", "test/b.csv", "dev/a.csv"):
            raw = f'question,choice0,choice1,choice2,choice3,answer\n"{name}, why?",p,q,r,s,3\n'.encode()
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    found = MMLU(str(tmp_path / "m.tar.gz")).items(Splits(Split()))
    assert [item.context.split(",")[0] for item in found] == ["test/a.csv", "test/b.csv"]
    assert found[0].context.endswith("why?\nA. p\nB. q\nC. r\nD. s\nAnswer:")
    assert (found[0].choices, found[0].answer) == (("A", "B", "C", "D"), 3)
    (tmp_path / "bad.bz2").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read as bzip2"):
        HellaSwag(str(tmp_path / "bad.bz2")).items(Splits(Split()))
