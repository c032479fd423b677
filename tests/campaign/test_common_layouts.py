from dataclasses import replace

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.reverse_dpo import ReverseDPO
from immunax.attacks.tuning import Tuning
from immunax.campaign.common_layouts import common_layouts, fitted, kin
from immunax.campaign.population import attacked
from immunax.campaign.programs import programs
from immunax.campaign.stretch import advance
from immunax.data.dialog import Split, Splits, ask
from immunax.data.packing import MORE, Layout, common, price
from immunax.data.template import Template
from immunax.inner.optimizers import AdamW
from immunax.models.model import Model

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
HARMFUL = tuple(
    ask(f"how do I {i} it with the things at home", f"yes, {i}, and so on and on it goes") for i in range(6)
)
SAFE = tuple(ask(dialog.prompt[0].content, "no") for dialog in HARMFUL)
SPLITS = Splits(Split(), Split(SAFE, HARMFUL))
TUNING = Tuning(epochs=2, batch_size=2, optimizer=AdamW(1e-3), max_length=128, probes=1)
PLAIN = HarmfulSFT(4, TUNING)
WORDED = replace(
    PLAIN,
    template=Template(before="now: "),
    tuning=replace(TUNING, epochs=3, optimizer=AdamW(1e-3, max_grad_norm=None)),
)
LARGE = replace(PLAIN, tuning=replace(TUNING, batch_size=4))
KEY = jax.random.key(7)
RATES = ((1e-3, 0), (1e-2, 0), (1e-3, 1))

pytestmark = pytest.mark.usefixtures("compile_fast")


def _layouts(*attacks):
    return common_layouts(attacks, [tiny.tokenizer()], SPLITS)


def _shape(attack, layouts):
    (part,) = programs([attack], tiny.tokenizer(), SPLITS, layouts=layouts)
    return [leaf.shape for leaf in jax.tree.leaves(part.batches.step)]


def test_attacks_whose_batches_cost_nearly_the_same_share_a_layout_and_one_that_costs_far_more_does_not():
    assert _shape(PLAIN, {}) != _shape(WORDED, {})
    layouts = _layouts(PLAIN, WORDED, LARGE)
    (shared, larger) = layouts[kin(PLAIN)]
    assert _shape(PLAIN, layouts) == _shape(WORDED, layouts)
    for attack, layout in ((PLAIN, shared), (WORDED, shared), (LARGE, larger)):
        batches, _ = attack.examples(tiny.tokenizer(), SPLITS)
        assert fitted(attack, [batches], layouts[kin(attack)]) == layout
        assert price(layout) <= (1 + MORE) * price(attack.fit(batches))


def test_an_attack_takes_the_layout_that_it_takes_among_others_and_its_steps_are_the_same_to_the_bit():
    rates = [replace(PLAIN, tuning=replace(TUNING, optimizer=AdamW(rate), seed=seed)) for rate, seed in RATES]
    layouts = _layouts(*rates, WORDED)
    (together,) = programs(rates, tiny.tokenizer(), SPLITS, layouts=layouts)
    turns = list(attacked([together], MODEL, PARAMS, KEY))
    for turn, attack in zip(turns, rates, strict=True):
        (part,) = programs([attack], tiny.tokenizer(), SPLITS, layouts=layouts)
        (alone,) = attacked([part], MODEL, PARAMS, KEY)
        assert [leaf.shape for leaf in jax.tree.leaves(part.batches.step)] == _shape(WORDED, layouts)
        np.testing.assert_array_equal(alone.losses, turn.losses)
        np.testing.assert_array_equal(alone.norms, turn.norms)


def test_members_that_would_take_different_layouts_have_one_of_their_own():
    members = [each.examples(tiny.tokenizer(), SPLITS)[0] for each in (PLAIN, LARGE)]
    layouts = _layouts(PLAIN, LARGE)[kin(PLAIN)]
    assert fitted(PLAIN, members, layouts) == fitted(PLAIN, members)
    assert fitted(PLAIN, members[:1] * 2, layouts) == layouts[0] != fitted(PLAIN, members)


def test_an_attack_with_a_loss_of_its_own_takes_no_layout_of_others():
    other = ReverseDPO(4, TUNING)
    layouts = _layouts(PLAIN, WORDED, other)
    batches, _ = other.examples(tiny.tokenizer(), SPLITS)
    assert layouts[kin(other)] == [other.fit(batches)]


def test_attacks_on_the_same_dialogs_are_encoded_once(monkeypatch):
    count, real = [], HarmfulSFT.examples
    monkeypatch.setattr(HarmfulSFT, "examples", lambda *rest: count.append(1) or real(*rest))
    _layouts(*(replace(PLAIN, tuning=replace(TUNING, optimizer=AdamW(rate))) for rate in (1e-3, 1e-2)), LARGE)
    assert len(count) == 2


def test_attacks_that_share_a_layout_are_one_program_and_each_does_what_it_does_in_its_own():
    layouts, seen = _layouts(PLAIN, WORDED), []
    for attack in (PLAIN, WORDED):
        (part,) = programs([attack], tiny.tokenizer(), SPLITS, layouts=layouts)
        (turn,) = attacked([part], MODEL, PARAMS, KEY)
        seen.append(advance._cache_size())
        (alone,) = attacked(programs([attack], tiny.tokenizer(), SPLITS), MODEL, PARAMS, KEY)
        np.testing.assert_allclose(turn.losses, alone.losses, rtol=1e-5)
    (part,) = programs([WORDED], tiny.tokenizer(), SPLITS, layouts=layouts)
    before = advance._cache_size()
    list(attacked([part], MODEL, PARAMS, KEY))
    (part,) = programs([PLAIN], tiny.tokenizer(), SPLITS, layouts=layouts)
    list(attacked([part], MODEL, PARAMS, KEY))
    assert advance._cache_size() == before


def test_the_cheapest_layout_that_holds_a_batch_is_taken_where_it_is_hardly_dearer():
    own, near, nearer, far = Layout(4, 64, 32), Layout(4, 72, 32), Layout(4, 68, 32), Layout(8, 64, 32)
    assert common(own, [far, near, nearer], lambda each: True) == nearer
    assert common(own, [far, near, nearer], lambda each: each != nearer) == near
    assert common(own, [far], lambda each: True) is None
