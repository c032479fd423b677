import pytest

from immunax.runtime.errors import RefusedError, UnreachableError, UserError
from immunax.runtime.meeting import LostError
from immunax.runtime.one_line import in_one_line


@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError, 2), (RefusedError, 2), (LostError, 142), (UnreachableError, 142), (KeyboardInterrupt, 130)],
)
def test_what_another_start_may_mend_by_itself_has_a_status_of_its_own(error, status, capsys):
    with pytest.raises(SystemExit) as end, in_one_line():
        raise error("the network is away")
    assert end.value.code == status
    assert len(capsys.readouterr().err.splitlines()) == 1
