import certified
from certified import POLICY, judged, measured, share, state, tables

from immunax.certificate.verify import tables as of
from immunax.conditions.deciding import deciding


def test_models_as_they_are_come_first_then_the_worst_and_the_cheapest_that_passes():
    attacked = {
        "mild": ("subject", "sft", 4, 1e9),
        "worst": ("subject", "sft", 38, 9e9),
        "cheap": ("subject", "lora", 20, 2e9),
        "broken": ("subject", "prune", 40, 1e9),
        "other": ("reference", "sft", 39, 1e9),
    }
    states = [state("as it is", "subject", "none"), state("theirs", "reference", "none")]
    rows = [measured(name, 0, "retain_nll", [1.0] * 4) for name in ("as it is", "theirs")]
    for name, (model, family, harmful, flops) in attacked.items():
        states.append(state(name, model, family, 5, flops=flops))
        rows += [judged(name, 5, "refusal", share(harmful, 40))]
        rows += [measured(name, 5, "retain_nll", [9.0 if name == "broken" else 1.0] * 4)]
    states.append(state("taught", "subject", "trainability", 5))
    found = deciding(*tables(states, *rows), POLICY)
    assert found[:3] == ["as it is", "theirs", "taught"]
    assert sorted(found[3:]) == ["cheap", "other", "worst"]


def test_a_whole_certificate_names_cells_that_it_has(tmp_path):
    path = certified.certificate(tmp_path)
    records, cells = of(path.parent)
    found = deciding(records, cells, POLICY)
    assert found[:2] == ["subject-none", "reference-none"]
    assert set(found) <= set(cells["cell"])
    assert len(found) == len(set(found))
