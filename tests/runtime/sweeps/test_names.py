import pytest

from immunax.runtime.sweeps.names import called


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["seed=1"], "seed=1"),
        (["+defense=tar", "seed=1"], "defense=tar+seed=1"),
        (["seed=1", "+defense=tar"], "defense=tar+seed=1"),
        (["trainer.optimizer.learning_rate=1e-4"], "learning_rate=1e-4"),
        (["trainer.seed=1", "seed=2"], "seed=2+trainer.seed=1"),
        (["attack@red_team=harmful_sft"], "red_team=harmful_sft"),
        (["model.path=/runs/one two"], "path=runs_one_two"),
        (["data.items=[1,2]", "x=null"], "items=1_2+x=null"),
        (["x=''"], "x=_"),
        ([""], "job"),
    ],
)
def test_a_job_is_called_by_what_differs(overrides, name):
    assert called(overrides) == name


def test_long_names_that_begin_alike_differ():
    one, other = (called([f"attack.prompt={'a' * 300}{end}"]) for end in "xy")
    assert one != other
    assert max(map(len, (one, other))) <= 150
