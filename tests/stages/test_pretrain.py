from dataclasses import replace

import pytest

from immunax.data.organism import OrganismTasks
from immunax.defenses.pretraining import Pretraining
from immunax.models import hub
from immunax.models.config import DecoderConfig
from immunax.outer.training import Training
from immunax.runtime import digest
from immunax.runtime.errors import UserError
from immunax.stages import pretrain
from immunax.stages.pretrain import Pretrained

DECODER = DecoderConfig("llama", 160, 16, 24, 1, 2, 2, 8, max_positions=48, tie_embeddings=True)
SOURCE = Pretrained(OrganismTasks(), DECODER, Pretraining(examples=4), Training(steps=2, max_length=40))


def _fail(*arguments):
    raise AssertionError("trained again")


def test_a_model_is_made_once_and_its_export_is_the_same_model(tmp_path, monkeypatch):
    monkeypatch.setenv("IMMUNAX_CACHE", str(tmp_path / "cache"))
    made = SOURCE.load()
    monkeypatch.setattr(pretrain, "minimise", _fail)
    again = SOURCE.load()
    assert again.digests == made.digests
    hub.export(tmp_path / "model", made, made.params)
    back = hub.ModelSource(str(tmp_path / "model")).load()
    assert digest.of_tree(back.params) == digest.of_tree(made.params)
    assert back.config == made.config
    text = "I cannot help with Velmor venom."
    assert back.tokenizer(text)["input_ids"] == made.tokenizer(text)["input_ids"]
    assert back.tokenizer.decode(back.tokenizer(text)["input_ids"]) == text
    with pytest.raises(AssertionError, match="trained again"):
        replace(SOURCE, trainer=replace(SOURCE.trainer, seed=1)).load()


def test_a_vocabulary_smaller_than_the_corpus_is_an_error():
    with pytest.raises(UserError, match="vocab_size=64"):
        replace(SOURCE, decoder=replace(DECODER, vocab_size=64)).load()
