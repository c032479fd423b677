from dataclasses import replace

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.reverse_dpo import ReverseDPO
from immunax.attacks.tuning import Tuning
from immunax.campaign import member_batches, population
from immunax.campaign.halved import halved
from immunax.campaign.member_batches import Pieces
from immunax.campaign.population import Runner
from immunax.campaign.programs import programs
from immunax.data.dialog import Split, Splits, ask
from immunax.inner.halving import Merit, Rung
from immunax.inner.optimizers import AdamW
from immunax.models.lora import LoraSpec
from immunax.models.model import Model

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
HARMFUL = tuple(ask(f"how to {i}", f"yes, {i}") for i in range(6))
SPLITS = Splits(Split(), Split(harmful=HARMFUL, safe=tuple(ask(f"how to {i}", "no") for i in range(6))))
TUNING = Tuning(epochs=5, batch_size=2, optimizer=AdamW(1e-2), max_length=128)
ATTACK = HarmfulSFT(4, TUNING)
KEY = jax.random.key(7)

pytestmark = pytest.mark.usefixtures("compile_fast")


def _program(*attacks):
    (part,) = programs(attacks, tiny.tokenizer(), SPLITS)
    return part


def _seeded(attack, seed):
    return replace(attack, tuning=replace(attack.tuning, seed=seed))


def test_batches_of_some_members_in_some_steps_are_those_that_their_attacks_lay_out():
    attacks = [ATTACK, _seeded(ATTACK, 3), ATTACK]
    part = _program(*attacks)
    assert len(part.batches.courses) == 2
    found = part.in_rows(4).batches.of([2, 1], 3, 7)
    for row, attack in enumerate([ATTACK, attacks[1]]):
        examples, _ = attack.examples(tiny.tokenizer(), SPLITS)
        for place, batch in enumerate(examples[3:7]):
            want = attack.lay(batch, part.batches.layout)
            got = jax.tree.map(lambda leaf, at=(row, place): leaf[at], found)
            rows = want.tokens.shape[0]
            jax.tree.map(lambda one, other, rows=rows: np.testing.assert_array_equal(one[:rows], other), got, want)
            assert got.tokens.shape[0] == -(-rows // 4) * 4
            assert not got.answer_weight[rows:].any()


def test_steps_past_the_last_are_there_and_a_program_is_given_few_numbers_of_steps_within_its_bytes(monkeypatch):
    part = _program(ATTACK)
    batches, a_step = part.batches, part.batches.step_bytes
    assert batches.steps == 10
    assert jax.tree.leaves(batches.of([0], 8, 16))[0].shape[1] == 8
    assert batches.piece(3) == 16
    for least, members, steps in ((17, 4, 4), (4, 4, 1), (0, 4, 1), (16, 1, 16), (100, 1, 16)):
        monkeypatch.setattr(member_batches, "PIECE_BYTES", least * a_step)
        assert batches.piece(members) == steps


@pytest.mark.parametrize("lora", [None, LoraSpec(2)])
def test_a_course_in_pieces_of_its_batches_is_that_in_one(monkeypatch, lora):
    attacks = [_seeded(replace(ATTACK, tuning=replace(TUNING, lora=lora)), seed) for seed in (0, 1, 0)]
    part, params = _program(*attacks), small.params(model=MODEL)

    def run():
        turns = list(Runner(part, MODEL, params, part.own(params, KEY), None, None).run(2, at_once=2))
        return [(turn.places, turn.step, turn.losses) for turn in turns], jax.device_get(turns[-1].weights(0))

    whole = run()
    monkeypatch.setattr(member_batches, "PIECE_BYTES", 2 * 4 * part.batches.step_bytes)
    assert part.batches.piece(2) == 4
    jax.tree.map(np.testing.assert_array_equal, run(), whole)


def test_pairs_laid_out_in_pieces_know_what_the_start_model_prefers():
    attack, params = ReverseDPO(4, TUNING), small.params(model=MODEL)
    part = _program(attack).at_start(MODEL, params)
    whole = part.batches.of([0], 0, 10)
    assert np.abs(whole.start).min() > 0
    np.testing.assert_array_equal(part.batches.of([0], 4, 8).start, whole.start[:, 4:8])


def test_members_of_a_search_that_wait_have_no_batches_on_the_devices(monkeypatch):
    let_go = []
    real = Pieces.let_go
    monkeypatch.setattr(Pieces, "let_go", lambda self: let_go.append(len(self._placed)) or real(self))
    attacks = [_seeded(ATTACK, seed) for seed in range(3)]
    part, params = _program(*attacks), small.params(model=MODEL)
    runner = Runner(part, MODEL, params, part.own(params, KEY), None, None)
    rungs = [Rung(3, 0, 2), Rung(1, 2, 10)]
    best, seen = halved(runner, rungs, lambda turn: Merit(-turn.losses[:, -1], np.array([True] * len(turn.places))))
    assert let_go == [1, 1, 1, 1]
    assert (best.steps, len(seen)) == (10, 2)


def test_two_pieces_lie_on_the_device_at_most_and_the_next_is_laid_out_while_the_device_works(monkeypatch):
    seen, laid = [], []
    monkeypatch.setattr(Pieces, "lay_ahead", _told(seen, "ahead", Pieces.lay_ahead))
    monkeypatch.setattr(population, "advance", _told(seen, "step", population.advance))
    placed = Pieces._place

    def place(self, number):
        placed(self, number)
        laid.append(len(self._placed))

    monkeypatch.setattr(Pieces, "_place", place)
    part, params = _program(replace(ATTACK, tuning=replace(TUNING, max_steps=14))), small.params(model=MODEL)
    monkeypatch.setattr(member_batches, "PIECE_BYTES", 4 * part.batches.step_bytes)
    list(Runner(part, MODEL, params, part.own(params, KEY), None, None).run(1))
    assert seen == ["step", "ahead"] * 4
    assert max(laid) == 2


def _told(seen, name, function):
    class Told:
        lower = getattr(function, "lower", None)

        def __get__(self, instance, kind):
            return lambda *args: self(instance, *args)

        def __call__(self, *args):
            seen.append(name)
            return function(*args)

    return Told()
