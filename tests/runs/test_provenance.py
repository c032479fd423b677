from immunax.runs.frame import Frame, Row
from immunax.runs.provenance import provenance


def runs(**more):
    return Frame([Row({"run": f"{seed}", "seed": seed, "versions.jax": "0.10.2", **more}) for seed in (0, 1)])


def test_a_table_says_what_it_rests_on():
    assert provenance(runs()) == "2 runs; jax 0.10.2; seeds 0, 1; 0.00 hours of wall time in all.\n"
    said = provenance(runs(**{"git.commit": "0123456789abcdef", "git.dirty": True, "goodput.wall": 3600.0}))
    assert "; commit 0123456789ab (changed); " in said
    assert said.endswith("2.00 hours of wall time in all.\n")


def test_runs_of_one_program_share_their_seconds():
    assert "1.00 hours" in provenance(runs(**{"goodput.wall": 3600.0, "goodput.runs": 2}))
