"""What users of other projects ran into with data, templates and checkpoints, tried here; ``README.md`` has the sources."""

import copy
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from immunax.data.chat import encode_all
from immunax.data.dialog import ask
from immunax.data.files import Form, read_file
from immunax.data.sources import Source
from immunax.runtime.checkpoint import Checkpoints
from immunax.runtime.errors import UserError


def test_a_column_that_is_null_for_a_long_time_and_text_later_is_read(tmp_path):
    rows = [{"prompt": "p" * 1000, "response": "r", "note": None} for _ in range(11_000)] + [
        {"prompt": "q", "response": "s", "note": "text"}
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dialogs = Source("a.jsonl", {"train": 1.0}, where={"note": "text"}).dialogs(str(tmp_path))
    assert dialogs == [ask("q", "s")]


@pytest.mark.parametrize("word", ["null", "NA", "None", "nan", ""])
def test_words_that_tables_take_for_nothing_stay_words(tmp_path, word):
    (tmp_path / "a.csv").write_text(f"prompt,response\nwhat,{word}\n")
    assert list(read_file(tmp_path / "a.csv", Form())) == [{"prompt": "what", "response": word}]


def test_a_byte_order_mark_changes_nothing(tmp_path):
    text = '{"prompt": "p", "meta": {"a": 1}}\n{"prompt": "q", "meta": {"b": 2}}\n'
    for name, encoding in (("a.jsonl", "utf-8"), ("b.jsonl", "utf-8-sig")):
        (tmp_path / name).write_text(text, encoding=encoding)
    one, other = (list(read_file(tmp_path / name, Form())) for name in ("a.jsonl", "b.jsonl"))
    assert one == other == [{"prompt": "p", "meta": {"a": 1}}, {"prompt": "q", "meta": {"b": 2}}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.parquet"])
def test_a_pointer_of_git_lfs_is_not_read_as_a_table(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4567\n")
    with pytest.raises(UserError, match=rf"{name}: a Git LFS pointer in place of the file; run git lfs pull"):
        list(read_file(tmp_path / name, Form()))


def test_examples_of_which_no_answer_is_left_are_an_error_and_not_a_loss_of_nothing():
    with pytest.raises(UserError, match="no dialog fits max_length=8"):
        encode_all(tiny.tokenizer(), [ask("the cat sat on the mat and the user asked", "it sat")], 8)


def test_an_answer_ends_with_its_end_also_where_that_is_the_padding():
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    [example], _ = encode_all(tokenizer, [ask("the cat", "it sat")], 64)
    assert example.answer[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id


def test_a_template_that_writes_the_beginning_itself_gives_one_and_not_two():
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    tokenizer.add_bos_token = True
    [example], _ = encode_all(tokenizer, [ask("the cat", "it sat")], 64)
    assert (example.prompt + example.answer).count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", ["4.orbax-checkpoint-tmp-0", "4.orbax-checkpoint-tmp-1703334121930256"])
def test_what_a_killed_save_left_is_no_checkpoint_and_does_not_stop_the_next_one(tmp_path, name):
    state = {"w": jnp.arange(4.0)}
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        checkpoints.save(2, state)
    (tmp_path / name / "default").mkdir(parents=True)
    with Checkpoints(tmp_path, keep_last=2) as checkpoints:
        assert checkpoints.latest() == 2
        checkpoints.save(4, {"w": state["w"] + 1})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.latest() == 4
        np.testing.assert_array_equal(checkpoints.restore(4, state)["w"], state["w"] + 1)
