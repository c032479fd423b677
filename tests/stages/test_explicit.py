import pytest

from immunax.attacks.harmful_sft import HarmfulSFT
from immunax.attacks.prune import Prune
from immunax.attacks.tuning import Tuning
from immunax.campaign.grid import Population
from immunax.certificate import grids
from immunax.judges.evaluate import Evaluation
from immunax.runtime.launch import composed
from immunax.runtime.places import without_places
from immunax.stages.explicit import explicit
from immunax.stages.suite import Suite

SFT = {"_target_": "immunax.attacks.harmful_sft.HarmfulSFT"}


def test_what_a_sent_attack_leaves_to_defaults_is_written_out():
    suite = Suite(
        "s", {"sft": Population(HarmfulSFT(10, Tuning())), "prune": Population(Prune(0.5), {"sparsity": [0.1]})}
    )
    sent = {
        "sft": {"attack": {**SFT, "samples": 10}},
        "prune": {"attack": {"sparsity": 0.5}, "grid": {"sparsity": [0.1]}},
    }
    said = explicit({"suite": {"name": "s", "attacks": sent}, "judge": {}}, suite, Evaluation())
    attacks = said["suite"]["attacks"]
    assert (attacks["sft"]["grid"], attacks["sft"]["seeds"]) == ({}, [0])
    assert attacks["prune"] == {**sent["prune"], "seeds": [0]}
    rate = float(Tuning().optimizer.learning_rate)
    assert grids.rates_of(attacks["sft"]) == suite.rates()["sft"] == {"": (rate,)}
    assert grids.tuned(attacks["sft"])
    assert not grids.tuned(attacks["prune"])
    assert (said["suite"]["measured"], said["suite"]["harmless_prompts"]) == (2, 40)
    assert (said["judge"]["prompts"], said["judge"]["examples"], said["judge"]["exact"]) == (40, 32, False)
    assert sent["sft"] == {"attack": {**SFT, "samples": 10}}


@pytest.mark.parametrize("name", ["smoke", "standard", "full"])
def test_the_suites_that_ship_say_it_all_already(name):
    config = composed("certify", [f"suite={name}"])
    before = without_places(dict(config.plain))
    assert without_places(explicit(config.plain, config.build("suite"), config.build("judge"))) == before
