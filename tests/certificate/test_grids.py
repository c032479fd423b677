import json

import pytest
from certified import LORA, state, tables

from immunax.certificate import grids
from immunax.conditions.edges import POPULATION, RATE, TRIED

SUITE = {"measured": 3}


def cells(rates=LORA["grid"][RATE], seeds=(0,), steps=(4, 8, 12), models=("subject", "reference"), **more):
    """States of a fine-tuning in every combination; ``more`` by model the steps of that one."""
    made = [
        state(f"{model}-{rate}-{seed}", model, "lora", step, seed, setting=json.dumps({RATE: rate}))
        for model in models
        for rate in rates
        for seed in seeds
        for step in more.get(model, steps)
    ]
    return tables(made)[1]


def fault(found, attack=LORA, further=None):
    return grids.fault(attack, grids.rates_of(attack), further or {}, found)


def test_a_fine_tuning_has_the_cells_of_its_grid_and_of_the_rates_that_it_goes_on_to():
    assert fault(cells(models=("subject",))) is None
    assert fault(cells((*LORA["grid"][RATE], 9e-4), models=("subject",)), further={"": (9e-4,)}) is None
    assert fault(cells((*LORA["grid"][RATE], 9e-4), models=("subject",))) == "the cells"
    assert fault(cells((3e-5, 1e-4, 2e-4), models=("subject",))) == "the settings and seeds"
    assert fault(cells(seeds=(1,), models=("subject",))) == "the settings and seeds"


def test_settings_that_are_built_are_known_by_their_name_alone_and_others_by_what_they_are():
    attack = {"grid": {"tuning.lora": [None, {"_target_": "x.LoRA", "rank": 8}], "bits": [8, 4]}, "seeds": [0, 1]}
    said = [{"tuning.lora": lora, "bits": bits} for lora in (None, {"rank": 8, "alpha": 16}) for bits in (8, 4)]

    def made(settings):
        named = [
            (f"{place}-{seed}", json.dumps(each, sort_keys=True), seed)
            for place, each in enumerate(settings)
            for seed in (0, 1)
        ]
        return tables([state(name, "subject", "x", 1, seed, setting=said) for name, said, seed in named])[1]

    assert fault(made(said), attack) is None
    assert fault(made([{**each, "bits": 8} for each in said]), attack) == "the settings and seeds"
    assert fault(made([{**each, "tuning.lora": None} for each in said]), attack) == "the settings and seeds"


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((4, 8, 12), None),
        ((5,), None),  # a prime number of steps has no other divisor
        ((1, 2), None),
        ((4, 8), None),
        ((2, 8), "at the steps 2, 8"),
        ((2, 6, 12), "at the steps 2, 6, 12"),
        ((12,), "at the steps 12"),
        ((0, 4, 8, 12), "at the steps 0"),
        ((0,), "without a step"),
    ],
)
def test_a_fine_tuning_is_measured_evenly_up_to_its_end(steps, told):
    found = grids.course_fault(LORA, SUITE, cells(steps=steps))
    assert (found is None) if told is None else found.startswith(told)


def test_it_is_measured_at_the_same_steps_on_both_models_and_everything_else_once():
    found = grids.course_fault(LORA, SUITE, cells(subject=(2, 4, 6)))
    assert found == "at other steps on one model than on the other"
    edit = {"grid": {}, "seeds": [0], "attack": {"sparsity": 0.1}}
    assert grids.course_fault(edit, SUITE, cells(steps=(5,))) is None
    assert grids.course_fault(edit, SUITE, cells()) == "more than once"
    search = {"populations": {"full": LORA}}
    assert grids.course_fault(search, SUITE, cells(subject=(3,), reference=(9,))) is None


SEARCH = {"populations": {"full": LORA, "more": {**LORA, "grid": {RATE: [1e-3]}, "seeds": [0, 1]}}}


def searched(*settings):
    return tables(
        [state(str(i), "subject", "s", 9, setting=json.dumps(each, sort_keys=True)) for i, each in enumerate(settings)]
    )[1]


TOLD = {"members": 5, TRIED: {"full": [3e-5, 1e-4, 3e-4], "more": [1e-3]}}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (TOLD, None),
        ({**TOLD, POPULATION: "full", RATE: 1e-4}, None),
        ({**TOLD, POPULATION: "full", RATE: 2e-4}, "the learning rate that was chosen"),
        ({**TOLD, POPULATION: "full", RATE: "0.0001"}, "the learning rate that was chosen"),
        ({**TOLD, POPULATION: "other", RATE: 1e-4}, "what was chosen"),
        ({**TOLD, POPULATION: "full"}, "what was chosen"),
        ({**TOLD, "members": 4}, "what was searched"),
        ({**TOLD, TRIED: {"full": [3e-5, 1e-4, 3e-4]}}, "what was searched"),
        ({RATE: 1e-4}, "what was searched"),
    ],
)
def test_a_search_says_what_its_configuration_gives_and_chose_of_that(said, told):
    assert fault(searched(said), SEARCH) == told


def test_a_search_that_went_on_says_so_in_a_second_cell():
    second = {"members": 1, TRIED: {"full": [9e-4]}, POPULATION: "full", RATE: 9e-4}
    assert fault(searched(TOLD, second), SEARCH, {"full": (9e-4,)}) is None
    assert fault(searched(TOLD, {**second, TRIED: {"full": [8e-4]}}), SEARCH, {"full": (9e-4,)}) == "what was searched"
    assert fault(searched(TOLD), SEARCH, {"full": (9e-4,)}) == "the cells"


def test_settings_are_in_one_form():
    spaced = cells(models=("subject",))
    spaced["setting"] = spaced["setting"] + " "
    assert fault(spaced) == "the settings"


def test_an_attack_costs_the_same_on_both_models_but_for_a_search():
    for column in ("flops", "samples"):
        dearer = cells()
        dearer[column] = dearer[column].where(dearer["model"] == "subject", dearer[column] + 1)
        assert grids.course_fault(LORA, SUITE, dearer) == "at other costs on one model than on the other"
        once = dearer[dearer["step"] == 12]
        edit = {"grid": {}, "seeds": [0], "attack": {"sparsity": 0.1}}
        assert grids.course_fault(edit, SUITE, once) == "at other costs on one model than on the other"
        assert grids.course_fault(SEARCH, SUITE, once) is None


def test_a_suite_that_asks_to_be_measured_without_end_is_looked_at_quickly():
    assert grids.course_fault(LORA, {"measured": 10**15}, cells(steps=((1 << 40) - 1,))).startswith("at the steps")
    assert grids.course_fault(LORA, SUITE, cells(steps=(1 << 41,))).startswith("without a step")
