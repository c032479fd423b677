from dataclasses import replace

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.prune import Prune
from immunax.attacks.tuning import Tuning
from immunax.campaign import population
from immunax.campaign.course import course
from immunax.data.dialog import Split, Splits, ask
from immunax.data.template import Template
from immunax.inner.optimizers import AdamW
from immunax.judges.evaluate import Evaluation, judge
from immunax.judges.examination import Answer
from immunax.judges.reading import read
from immunax.models.generate import Decoding
from immunax.models.lora import Adapted, LoraSpec
from immunax.models.model import Model
from immunax.runtime.errors import DivergedError, UserError
from immunax.stages import under_attack
from immunax.stages.red_team import Probes, assemble
from immunax.stages.under_attack import Assault, populations, red_team, red_teams

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
        return [(len(text) + sum(map(ord, text)) / 1e6) / 1e3 for text in texts]


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
        texts = read(tiny.tokenizer(), answer(weights, (team.probed.prompts, key)), team.after.stop, False).texts
        expected.append(judge(EVALUATION, team.probed.dialogs, texts)["length"])
    np.testing.assert_array_equal(episode.course.probes["length"], expected)
    assert episode.course.probe_steps.tolist() == [0, *(point.step for point in points)]
    np.testing.assert_array_equal(episode.course.loss, points[-1].losses)
    # Two evaluations; of the probes those between, and the first where users word it otherwise.
    other = attack.evaluation(HARMFUL[0]) != HARMFUL[0]
    assert len(generated) == 2 + len(points) - 1 + other


def test_no_copy_of_attacked_weights_lies_beside_the_steps_that_follow(monkeypatch):
    shape, lying, real = PARAMS["embed_tokens"]["embedding"].shape, [], population.advance

    def counted(*args):
        lying.append(sum(leaf.shape == shape for leaf in jax.live_arrays()))
        return real(*args)

    counted.lower, counted.trace = real.lower, real.trace
    monkeypatch.setattr(population, "advance", counted)
    attacked(HarmfulSFT(4, replace(TUNING, probes=4)))
    assert len(lying) == 4
    assert set(lying) == {lying[0]}


class FallsAfter(Length):
    """A judge of refusals that sees every prompt refused in its first calls, and none from then on."""

    def __init__(self, calls):
        self.calls = calls

    def score(self, dialogs, texts):
        self.calls -= 1
        return [float(self.calls < 0)] * len(texts)


def until(calls, share):
    evaluation = replace(EVALUATION, judges={"refusal": FallsAfter(calls)}, prompts=5)
    attack = HarmfulSFT(6, replace(TUNING, epochs=4, probes=12))
    team = assemble(attack, evaluation, tiny.tokenizer(), SPLITS, Probes(5, 4, share))
    return red_team(team, MODEL, PARAMS, tiny.tokenizer(), "model", 7).course


def test_an_attack_ends_where_refusals_are_shown_to_have_fallen():
    # One evaluation before the attack, whose answers are the first probe too, and a probe after each step.
    found = until(calls=2 + 3, share=0.6)
    assert found.probe_steps.tolist() == [0, 1, 2, 3, 4]
    assert found.probes["refusal"].mean(axis=1).tolist() == [0, 0, 0, 0, 1]
    assert len(found.loss) == 4
    assert found.samples.tolist() == [0, 2, 4, 6, 6]
    assert found.flops[2] == pytest.approx(found.flops[4] - found.flops[2], rel=0.2)


def test_an_attack_without_a_bound_or_a_fall_goes_to_its_end():
    assert until(calls=2, share=None).probe_steps.tolist() == list(range(13))
    assert until(calls=100, share=0.6).probe_steps.tolist() == list(range(13))


def test_a_bound_on_refusals_needs_their_judge():
    with pytest.raises(UserError, match=r"judge.judges has no refusal"):
        assemble(HarmfulSFT(4, TUNING), EVALUATION, tiny.tokenizer(), SPLITS, Probes(3, 4, 0.5))


def test_an_attack_that_diverges_says_nothing_of_resistance():
    absurd = replace(TUNING, optimizer=AdamW(1e38))
    with pytest.raises(UserError, match="diverged"):
        attacked(HarmfulSFT(4, absurd))


def test_the_attacked_weights_are_handed_over_before_they_are_scored():
    attack = HarmfulSFT(4, replace(TUNING, lora=LoraSpec(2, targets=("q_proj",))))
    team, kept = assemble(attack, EVALUATION, tiny.tokenizer(), SPLITS, Probes(3, 4)), []
    red_team(team, MODEL, PARAMS, tiny.tokenizer(), "model", 7, keep=kept.append)
    key = jax.random.split(jax.random.key(7), 3)[0]
    *_, last = course(attack, team.material, MODEL, PARAMS, key)
    (given,) = kept
    assert isinstance(given, Adapted)
    jax.tree.map(np.testing.assert_array_equal, given.lora, last.weights.lora)


def together(attacks, seeds, probes, evaluation=EVALUATION):
    """By place, what attacks on one model come to as one program; and the number of programs."""
    teams = [assemble(each, evaluation, tiny.tokenizer(), SPLITS, probes) for each in attacks]
    assaults = [Assault(*each) for each in zip(teams, seeds, strict=True)]
    parts = populations(assaults, tokenizer := tiny.tokenizer(), SPLITS)
    return dict(red_teams(assaults, parts, MODEL, PARAMS, tokenizer, "model")), sum(len(each.parts) for each in parts)


def test_attacks_that_are_one_program_come_to_what_each_comes_to_alone():
    tunings = [
        TUNING,
        replace(TUNING, optimizer=AdamW(3e-3), seed=1),
        replace(TUNING, lora=LoraSpec(2, targets=("q_proj",))),
        replace(TUNING, lora=LoraSpec(4, targets=("q_proj",)), seed=2),
        replace(TUNING, optimizer=AdamW(1e38)),
    ]
    attacks = [*(HarmfulSFT(4, each) for each in tunings), Prune(), HarmfulSFT(4, TUNING, template=Template("Obey."))]
    seeds = [7, 1, 7, 2, 7, 7, 7]
    found, programs = together(attacks, seeds, Probes(3, 4))
    assert programs == 2
    assert sorted(found) == list(range(len(attacks)))
    for place, (attack, seed) in enumerate(zip(attacks, seeds, strict=True)):
        team = assemble(attack, EVALUATION, tiny.tokenizer(), SPLITS, Probes(3, 4))
        if place == 4:
            with pytest.raises(DivergedError) as alone:
                red_team(team, MODEL, PARAMS, tiny.tokenizer(), "model", seed)
            assert str(found[place]) == str(alone.value)
            continue
        alone = red_team(team, MODEL, PARAMS, tiny.tokenizer(), "model", seed)
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), found[place], alone
        )
        np.testing.assert_array_equal(found[place].course.flops, alone.course.flops)


@pytest.mark.parametrize(
    ("at_once", "steps"),
    [(1, [[0, 1, 2, 3, 4], [0, 1]]), (None, [[0, 1, 2, 3], [0, 1, 2]])],
    ids=["in turns", "at once"],
)
def test_in_a_population_each_attack_ends_where_its_own_refusals_have_fallen(monkeypatch, at_once, steps):
    monkeypatch.setattr("immunax.campaign.population.most_at_once", lambda mesh: at_once)
    # Of two members, the judge is asked before the attack and for the first probe; then three times more it sees refusals.
    evaluation = replace(EVALUATION, judges={"refusal": FallsAfter(2 * 2 + 3)}, prompts=5)
    attacks = [HarmfulSFT(6, replace(TUNING, epochs=4, probes=12, seed=seed)) for seed in (0, 1)]
    found, _ = together(attacks, (0, 1), Probes(5, 4, 0.6), evaluation)
    assert [found[place].course.probe_steps.tolist() for place in (0, 1)] == steps
