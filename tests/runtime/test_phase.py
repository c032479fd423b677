import json

import pytest

from immunax.runtime.accounts import Start, as_json, from_json, phases_of
from immunax.runtime.errors import UserError
from immunax.runtime.phase import Phase, Stretches, Work, in_words, rates, told

# 4 devices, 10 s: 1,000 of 1,250 tokens real, 6e12 of 8e12 operations useful.
WARM = Stretches(10.0, 40.0, Work(5, 1000, 1250, 6e12, 8e12))
COLD = Stretches(30.0, 120.0, Work(1, 200, 250, 1.2e12, 1.6e12))
PHASE = Phase("step", 65.0, 25.0, 3, 2, WARM, COLD, 1e12, 2**34, 2**33)


def test_rates_are_of_all_devices_and_utilisations_of_the_peak_of_all_devices():
    assert rates(WARM, 1e12) == {
        "tokens_per_second": 100.0,
        "computed_tokens_per_second": 125.0,
        "model_flops_per_second": 6e11,
        "product_flops_per_second": 8e11,
        "mfu": 0.15,  # 6e11 of 4 x 1e12
        "hfu": 0.2,
    }


def test_what_is_not_known_is_none():
    assert rates(Stretches(2.0, 2.0, Work(1)), 1e12) == dict.fromkeys(rates(WARM, 1e12))
    unknown = rates(WARM, None)
    assert (unknown["mfu"], unknown["hfu"], unknown["tokens_per_second"]) == (None, None, 100.0)


def test_rates_are_of_stretches_that_nothing_was_compiled_for_and_steps_of_all():
    found = told(PHASE)
    assert (found["steps"], found["tokens"], found["computed_tokens"]) == (6, 1200, 1500)
    assert (found["measured_steps"], found["measured_seconds"], found["warm"]) == (5, 10.0, True)
    assert (found["tokens_per_second"], found["mfu"], found["devices"]) == (100.0, 0.15, 4.0)
    assert (found["seconds"], found["compile_seconds"], found["programs"], found["cached_programs"]) == (65, 25, 3, 2)
    assert (found["device_memory_peak"], found["host_memory_peak"]) == (2**34, 2**33)
    alone = told(Phase("edit", 31.0, 1.0, 1, 0, cold=COLD))
    assert (alone["edits"], alone["measured_edits"], alone["warm"]) == (1, 1, False)
    assert alone["tokens_per_second"] == pytest.approx(200 / 30, rel=1e-4)


def test_the_phases_of_all_starts_add_up_and_the_most_memory_counts():
    first, second = Start(0.0, phases={"train": PHASE}), Start(9.0, phases={"train": PHASE, "attack": PHASE})
    again = from_json(json.loads(json.dumps(as_json(second))))
    assert again == second
    found = phases_of([first, again])
    assert found["attack"] == PHASE
    train = found["train"]
    assert (train.steps, train.seconds, train.programs) == (12, 130.0, 6)
    assert train.warm == Stretches(20.0, 80.0, Work(10, 2000, 2500, 1.2e13, 1.6e13))
    assert (train.device_memory, train.peak) == (2**34, 1e12)
    assert told(train)["mfu"] == told(PHASE)["mfu"]


def test_accounts_of_before_there_were_phases_have_none_and_odd_ones_are_refused():
    said = as_json(Start(3.0))
    for name in ("phases", "programs", "cached"):
        del said[name]
    assert from_json(said) == Start(3.0)
    for odd in (
        {"train": {}},
        {"train": [1]},
        [1],
        {"train": {**as_json(Start(0, phases={"x": PHASE}))["phases"]["x"], "warm": 1}},
    ):
        with pytest.raises(UserError, match="no account"):
            from_json({**said, "phases": odd})


def test_a_phase_is_one_short_line():
    assert in_words(PHASE) == (
        "6 steps in 65.0 s, 25.0 of them compiling 3 programs (2 from the cache); 100 tokens/s, 0.6 model TFLOP/s, MFU 15.0%, "
        "HFU 20.0%; at most 16 GiB of a device until now"
    )
    assert in_words(Phase("edit", 1.25, warm=Stretches(1.0, 1.0, Work(1)), host_memory=2**29)) == (
        "1 edit in 1.2 s; at most 0.5 GiB in memory until now"
    )
