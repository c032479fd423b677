import copy
import json

import pytest
import tiny
from tokenizers import decoders

from immunax.attacks.merge import Merge
from immunax.data.corpora import Corpus
from immunax.data.sources import Source
from immunax.judges.refusal import Refusal
from immunax.models import speech
from immunax.models.hub import ModelSource
from immunax.models.lora import LoraSpec
from immunax.stages.identity import identity


def test_equal_objects_have_one_identity_and_every_field_counts():
    assert identity({"a": LoraSpec(4)}) == identity({"a": LoraSpec(4)})
    assert identity(LoraSpec(4)) != identity(LoraSpec(8))
    assert identity(Refusal()) != identity(Refusal(phrases=("no",)))
    assert json.loads(json.dumps(identity([1, None, "x", (2.5, True)]))) == [1, None, "x", [2.5, True]]


def test_a_corpus_and_a_model_are_what_their_files_hold_and_not_where_they_lie(tmp_path):
    def written(folder, answer):
        (tmp_path / folder).mkdir(exist_ok=True)
        rows = [json.dumps({"prompt": f"{i}?", "answer": f"{answer} {i}"}) for i in range(20)]
        (tmp_path / folder / "rows.jsonl").write_text("\n".join(rows))
        source = Source("rows.jsonl", {"test": 1.0}, prompt="prompt", answer="answer")
        return identity(Corpus("rows", str(tmp_path / folder), harmful={"rows": source}))

    first = written("here", "yes")
    assert written("there", "yes") == first
    assert written("here", "no") != first

    def saved(folder, text):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "config.json").write_text(text)
        return identity(Merge(ModelSource(str(tmp_path / folder))))

    model = saved("one", "{}")
    assert saved("two", "{}") == model
    assert saved("one", "{ }") != model


@pytest.mark.parametrize("part", ["decoder", "template", "arguments", "stop", "special"])
def test_whatever_changes_how_a_tokenizer_reads_or_writes_changes_its_identity(part):
    one = copy.deepcopy(tiny.tokenizer())
    other = copy.deepcopy(one)
    if part == "decoder":
        other.backend_tokenizer.decoder = decoders.Fuse()
    if part == "template":
        other.chat_template = f"{other.chat_template} "
    if part == "arguments":
        other.template_args = {"enable_thinking": False}
    if part == "stop":
        other.stop_ids = (2,)
    if part == "special":
        other.eos_token = "<bos>"
    assert speech.digests(one) == speech.digests(tiny.tokenizer())
    assert speech.digests(other) != speech.digests(one)


def test_how_the_last_batch_was_padded_is_no_part_of_a_tokenizer():
    one = copy.deepcopy(tiny.tokenizer())
    before = speech.digests(one)
    one(["the cat", "the cat sat"], padding=True, truncation=True, max_length=2)
    assert speech.digests(one) == before
