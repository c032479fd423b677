import copy
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.latent_attack import LatentAttack
from immunax.attacks.tuning import Tuning
from immunax.campaign.course import edited
from immunax.campaign.population import attacked
from immunax.campaign.programs import programs
from immunax.data.dialog import Split, Splits, ask
from immunax.inner.context import check_context, longest
from immunax.judges.evaluate import Evaluation, given_by, held_out
from immunax.judges.refusal import Refusal
from immunax.models.generate import Decoding
from immunax.runtime.errors import UserError

DIALOGS = tuple(ask(f"how to {i}?", "it sat") for i in range(4))
SPLITS = Splits(Split(), Split(harmful=DIALOGS, retain=DIALOGS), test=Split(harmful=DIALOGS, retain=DIALOGS))
MODEL = SimpleNamespace(config=SimpleNamespace(max_positions=64))


def test_the_longest_sequence_of_anything_that_holds_batches_and_prompts_is_found():
    material = held_out(Evaluation(), tiny.tokenizer(), SPLITS.test)
    batch = small.batch(0, 3)
    assert longest(((), {"one": batch}, material.prompts)) == max(
        int(batch.segment_ids.astype(bool).sum(axis=-1).max()), int(np.sum(material.prompts.segment_ids, axis=-1).max())
    )
    assert longest(()) == longest((np.zeros(9), None)) == 0
    check_context(MODEL, "a dialog", batch, 64 - longest(batch))
    with pytest.raises(
        UserError, match=r"a dialog: 65 tokens with what the chat template adds, more than .* context of 64"
    ):
        check_context(MODEL, "a dialog", batch, 65 - longest(batch))


def test_what_a_long_template_makes_longer_than_the_context_is_refused_by_attacks_and_exam():
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tuning, judge = (
        Tuning(epochs=1, max_length=40),
        Evaluation({"refusal": Refusal()}, max_length=40, decoding=Decoding(2)),
    )
    plain, long = tokenizer.chat_template, "{{ 'I am kind. ' * 99 }}" + tokenizer.chat_template
    assert [len(programs([HarmfulSFT(4, tuning)], tokenizer, SPLITS)), plain != long] == [1, True]
    tokenizer.chat_template = long
    key = jax.random.key(0)
    with pytest.raises(UserError, match=r"a dialog that the attack trains on: .*more than the model's context of 64"):
        next(attacked(programs([HarmfulSFT(4, tuning)], tokenizer, SPLITS), MODEL, {}, key))
    latent = LatentAttack(samples=2, max_length=40)
    with pytest.raises(UserError, match="a dialog that the attack reads: "):
        edited(latent, MODEL, {}, latent.material(tokenizer, SPLITS), key)
    with pytest.raises(UserError, match=r"a held-out prompt with judge\.decoding\.max_new_tokens for its answer: "):
        given_by(judge, MODEL, {}, held_out(judge, tokenizer, SPLITS.test), key)
