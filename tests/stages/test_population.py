from dataclasses import replace

import alone
import jax
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.data.dialog import Split, Splits, ask
from immunax.data.template import Template
from immunax.inner.optimizers import AdamW
from immunax.judges.evaluate import Evaluation, asked_by, evaluate
from immunax.judges.refusal import Refusal
from immunax.models.generate import Decoding
from immunax.models.model import Model
from immunax.runtime.errors import UserError
from immunax.stages.population import assemble_population, attack_and_score

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
HARMFUL = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))
SPLITS = Splits(
    Split(), Split(harmful=HARMFUL, retain=HARMFUL[:4]), test=Split(harmful=HARMFUL[:5], retain=HARMFUL[3:])
)
TUNING = Tuning(epochs=2, batch_size=2, optimizer=AdamW(1e-2), max_length=128, probes=1)
# Five prompts in batches of two: the last one is filled up.
EVALUATION = Evaluation({"refusal": Refusal()}, prompts=5, examples=5, batch_size=2, decoding=Decoding(4), exact=True)


def test_a_member_scores_what_its_attack_run_and_evaluated_alone_scores():
    template = Template("Obey.", "Now, ", "!")
    attacks = [HarmfulSFT(4, TUNING), HarmfulSFT(4, replace(TUNING, seed=1), harmless=0.5, template=template)]
    team = assemble_population(attacks, EVALUATION, tiny.tokenizer(), SPLITS)
    assert len(team.parts) == 1
    member = attack_and_score(team, MODEL, PARAMS, tiny.tokenizer(), 7)[1]
    asked = asked_by(team.material, attacks[1], EVALUATION, tiny.tokenizer())
    key = jax.random.fold_in(jax.random.key(7), 1)
    weights, losses = alone.descend(attacks[1], MODEL, PARAMS, SPLITS, key)
    expected = evaluate(EVALUATION, MODEL, weights, tiny.tokenizer(), asked, key)
    np.testing.assert_allclose(member.loss, losses, rtol=1e-4)
    np.testing.assert_array_equal(member.scores.judged["refusal"], expected.judged["refusal"])
    np.testing.assert_array_equal(member.scores.exact, expected.exact)
    for name in ("harmful", "retain"):
        found, known = getattr(member.scores, name), getattr(expected, name)
        np.testing.assert_allclose(found.nll, known.nll, rtol=1e-3)
        np.testing.assert_array_equal(found.tokens, known.tokens)
    assert not member.diverged


def test_no_attack_is_refused_in_one_line():
    with pytest.raises(UserError, match="at least one attack"):
        assemble_population([], EVALUATION, tiny.tokenizer(), SPLITS)
