from dataclasses import replace

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.prune import Prune
from immunax.attacks.tuning import Tuning
from immunax.campaign.course import course
from immunax.data.dialog import Split, Splits, ask
from immunax.data.template import Template
from immunax.inner.optimizers import AdamW
from immunax.judges.evaluate import Evaluation, answers, judge
from immunax.judges.examination import Answer
from immunax.models.generate import Decoding
from immunax.models.model import Model
from immunax.runtime.errors import UserError
from immunax.stages import under_attack
from immunax.stages.red_team import Probes, assemble
from immunax.stages.under_attack import red_team

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
HARMFUL = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))
SPLITS = Splits(
    Split(), Split(harmful=HARMFUL, retain=HARMFUL[:4]), test=Split(harmful=HARMFUL[:5], retain=HARMFUL[3:])
)
TUNING = Tuning(epochs=2, batch_size=2, optimizer=AdamW(1e-2), max_length=128, probes=2)


class Length:
    """Says of an answer how long it is: other answers have other scores."""

    def score(self, dialogs, texts):
        return [len(text) + sum(map(ord, text)) / 1e6 for text in texts]


EVALUATION = Evaluation({"length": Length()}, prompts=5, examples=4, batch_size=2, decoding=Decoding(6))


def attacked(attack, evaluation=EVALUATION):
    team = assemble(attack, evaluation, tiny.tokenizer(), SPLITS, Probes(3, 4))
    return team, red_team(team, MODEL, PARAMS, tiny.tokenizer(), "model", 7)


@pytest.mark.parametrize("attack", [HarmfulSFT(4, TUNING), HarmfulSFT(4, TUNING, template=Template("Obey.")), Prune()])
def test_probes_are_judged_as_if_each_were_generated_where_it_stands(attack, monkeypatch):
    generated = []
    real = under_attack.given_by
    monkeypatch.setattr(under_attack, "given_by", lambda *rest: generated.append(rest[0]) or real(*rest))
    team, episode = attacked(attack)
    key = jax.random.split(jax.random.key(7), 3)[0]
    points = list(course(attack, team.material, MODEL, PARAMS, key, 2))
    stages = [PARAMS, *(point.weights for point in points)]
    answer = Answer(MODEL, team.after.stop, Decoding(4))
    expected = []
    for weights in stages:
        texts = answers(tiny.tokenizer(), answer(weights, (team.probed.prompts, key)), team.after.stop)
        expected.append(judge(EVALUATION, team.probed.dialogs, texts)["length"])
    np.testing.assert_array_equal(episode.course.probes["length"], expected)
    assert episode.course.probe_steps.tolist() == [0, *(point.step for point in points)]
    np.testing.assert_array_equal(episode.course.loss, points[-1].losses)
    # Two evaluations; of the probes those between, and the first where users word it otherwise.
    other = attack.evaluation(HARMFUL[0]) != HARMFUL[0]
    assert len(generated) == 2 + len(points) - 1 + other


def test_an_attack_that_diverges_says_nothing_of_resistance():
    absurd = replace(TUNING, optimizer=AdamW(1e38))
    with pytest.raises(UserError, match="diverged"):
        attacked(HarmfulSFT(4, absurd))
