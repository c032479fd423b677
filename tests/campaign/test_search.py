from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
import small
import tiny

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.tuning import Tuning
from immunax.campaign import first_steps, population
from immunax.campaign.grid import Population
from immunax.campaign.population import attacked
from immunax.campaign.programs import programs
from immunax.campaign.ranking import weighed
from immunax.campaign.search import PHASE, Search, prepare_search, run_search
from immunax.campaign.stretch import advance
from immunax.data.batches import layout_of, pack
from immunax.data.chat import encode_all
from immunax.data.dialog import Split, Splits, ask
from immunax.data.packing import fit_packed
from immunax.inner.halving import Halving
from immunax.inner.losses import mean_answer_loss
from immunax.inner.optimizers import AdamW
from immunax.judges.evaluate import Evaluation, held_out
from immunax.models.flops import forward_flops, training_flops
from immunax.models.lora import LoraSpec
from immunax.models.model import Model
from immunax.runtime import goodput
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build, shard

MODEL = Model(replace(small.CONFIG, vocab_size=304, max_positions=256, n_layers=2))
PARAMS = small.params(model=MODEL)
SPLIT = Split(
    harmful=tuple(ask(f"how to {i}", "yes, sure") for i in range(6)),
    retain=tuple(ask(f"what is {i}", f"it is {i}") for i in range(6)),
)
SPLITS = Splits(
    Split(), SPLIT, validation=replace(SPLIT, retain=tuple(ask(f"what is {i}", "#%" * 9) for i in range(6)))
)
TUNING = Tuning(epochs=4, batch_size=2, max_length=128)
FULL = Population(HarmfulSFT(4, TUNING), {"tuning.optimizer.learning_rate": [1e-6, 3e-3, 1e-5]})
LORA = Population(HarmfulSFT(4, replace(TUNING, lora=LoraSpec(2), optimizer=AdamW(1e-4))))
SEARCH = Search({"full": FULL, "lora": LORA}, Halving(2, 2), keep=1e-6, examples=4)
KEY = jax.random.key(0)


pytestmark = pytest.mark.usefixtures("compile_fast")


def _find(search=SEARCH):
    return run_search(prepare_search(search, tiny.tokenizer(), SPLITS), MODEL, PARAMS, KEY)


_nll = jax.jit(partial(mean_answer_loss, MODEL))


def test_the_accounts_of_a_search_are_its_budget(tmp_path):
    with goodput.kept(whole_process=False):
        goodput.record(tmp_path)
        found = _find()
        phase = goodput.phases(tmp_path)[PHASE]
    done = phase.warm.plus(phase.cold).work
    assert (done.steps, done.tokens) == (found.budget.steps, found.budget.tokens)
    assert done.flops == pytest.approx(found.budget.flops)
    assert done.computed >= done.tokens


def test_the_attack_found_does_most_harm_and_its_weights_do_what_its_trial_says():
    found = _find()
    assert found.best.settings == {"tuning.optimizer.learning_rate": 3e-3, "tuning.seed": 0}
    assert found.attack.tuning.optimizer.learning_rate == 3e-3
    assert found.best.harmful_nll == min(trial.harmful_nll for trial in found.trials)
    assert found.best.steps == len(found.loss) == 8
    assert found.loss[-1] < found.loss[0]
    harmful, _ = encode_all(tiny.tokenizer(), SPLITS.validation.harmful[:4], 128)
    batch = jax.tree.map(lambda leaf: leaf[None], pack(harmful, fit_packed([harmful])))
    np.testing.assert_allclose(_nll(found.params, batch), found.best.harmful_nll, rtol=1e-5)
    assert [(trial.member, trial.steps) for trial in found.trials] == [(0, 2), (1, 2), (2, 2), (1, 8), (3, 8)]


def test_the_budget_is_what_every_member_trained_on_and_was_ranked_by():
    prepared = prepare_search(SEARCH, tiny.tokenizer(), SPLITS)
    full, lora = prepared.parts
    # Halved: three members for 2 steps, the first the same for all; the second for 6 more; one with adapters for all 8.
    trained = [*full.examples[0][:2], *full.examples[1][1:], *full.examples[2][1:2]]
    full_sizes = [each for batch in trained for each in batch]
    lora_sizes = [each for batch in lora.examples[0] for each in batch]
    budget = _find().budget
    assert budget.steps == 2 + 8 + 2 + 8
    assert budget.tokens == sum(size for size, _ in full_sizes + lora_sizes)
    training = training_flops(MODEL.config, full_sizes) + training_flops(MODEL.config, lora_sizes, LoraSpec(2))
    encoded, _ = encode_all(tiny.tokenizer(), [*SPLITS.validation.harmful[:4], *SPLITS.validation.retain[:4]], 128)
    ranking = 5 * forward_flops(MODEL.config, [(len(each.tokens), len(each.answer)) for each in encoded])
    np.testing.assert_allclose(budget.flops, training + ranking)


@pytest.mark.parametrize("together", ["on one device", "over devices"])
def test_members_that_run_together_are_found_as_in_turns(together, monkeypatch):
    grid = {"tuning.optimizer.learning_rate": [1e-6, 3e-3, 1e-5, 1e-3, 3e-4]}
    search = replace(SEARCH, populations={"full": replace(FULL, grid=grid)})
    turns = _find(search)
    if together == "on one device":
        monkeypatch.setattr(population, "most_at_once", lambda mesh: 3)
        found = _find(search)
    else:
        mesh = build(MeshSpec(attack=4))
        found = run_search(prepare_search(search, tiny.tokenizer(), SPLITS), MODEL, shard(PARAMS, mesh), KEY, mesh)
    assert [trial[:3] for trial in found.trials] == [trial[:3] for trial in turns.trials]
    assert len(found.trials) == 5 + 2 + 1
    scores = ([trial.harmful_nll for trial in each.trials] for each in (found, turns))
    np.testing.assert_allclose(*scores, rtol=1e-5)
    np.testing.assert_allclose(found.loss, turns.loss, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), found.params, turns.params)


def test_validation_examples_have_the_shape_of_what_is_asked_beside_them_and_rank_the_same():
    beside = held_out(Evaluation(examples=6, batch_size=6, max_length=128), tiny.tokenizer(), SPLITS.validation)
    alone, shared = (prepare_search(SEARCH, tiny.tokenizer(), SPLITS, beside=each) for each in (None, beside))
    assert {layout_of(each.batches) for each in shared.ranked_by} <= {
        layout_of(beside.harmful),
        layout_of(beside.retain),
    }
    for one, other in zip(alone.ranked_by, shared.ranked_by, strict=True):
        np.testing.assert_allclose(*(weighed(MODEL, PARAMS, each) for each in (one, other)), rtol=1e-5)
        batch, _ = encode_all(tiny.tokenizer(), SPLITS.validation.harmful[:4], 128)
        packed = jax.tree.map(lambda leaf: leaf[None], pack(batch, fit_packed([batch])))
        np.testing.assert_allclose(weighed(MODEL, PARAMS, one)[0], _nll(PARAMS, packed), rtol=1e-5)


def test_a_search_takes_the_very_steps_of_the_attack_that_it_searches():
    turns = attacked(programs([FULL.members()[0]], tiny.tokenizer(), SPLITS), MODEL, PARAMS, KEY)
    assert next(turns).step == 8
    before = advance._cache_size()
    _find(replace(SEARCH, populations={"full": FULL}))
    assert advance._cache_size() == before


def test_what_a_search_finds_and_spends_does_not_hang_on_whether_first_steps_are_shared(monkeypatch):
    alone = _find(SEARCH)
    monkeypatch.setattr(first_steps, "SAVED", 1)
    shared = _find(SEARCH)
    assert shared.budget == alone.budget
    assert [trial[:3] for trial in shared.trials] == [trial[:3] for trial in alone.trials]
    scores = ([trial.harmful_nll for trial in each.trials] for each in (shared, alone))
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_an_attack_that_ruins_the_model_does_not_count():
    fierce = replace(FULL, grid={"tuning.optimizer.learning_rate": [1e-6, 3e-2, 1e-5]})
    search = replace(SEARCH, populations={"full": fierce, "lora": LORA})
    free, bound = _find(search), _find(replace(search, keep=0.99))
    assert [trial.allowed for trial in bound.trials if (trial.member, trial.steps) == (1, 2)] == [False]
    assert bound.best.member != free.best.member
    assert bound.best.harmful_nll > free.best.harmful_nll


def test_a_search_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="validation"):
        prepare_search(SEARCH, tiny.tokenizer(), Splits(Split(), SPLIT))
    with pytest.raises(UserError, match="keep"):
        Search({"full": FULL}, keep=1.1)
