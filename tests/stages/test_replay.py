import pytest

from immunax.runtime.errors import UserError
from immunax.stages.replay import mesh_of


def test_a_replay_is_spread_over_the_axes_that_are_named():
    assert mesh_of("").size == 1
    assert mesh_of("fsdp=-1,tensor=2").shape == {"attack": 1, "data": 1, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize(
    "text", ["fsdp", "fsdp=", "fsdp=x", "experts=2", "fsdp=2;tensor=2", "fsdp=2 ,data=1", "fsdp=1.5"]
)
def test_what_is_no_mesh_is_one_line(text):
    with pytest.raises(UserError, match=r"--mesh .*: expected sizes of attack, data, fsdp, tensor, as "):
        mesh_of(text)
