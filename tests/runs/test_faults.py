import pytest

from immunax.runs.faults import tell


@pytest.mark.parametrize(("count", "lines"), [(0, 0), (10, 10), (12, 11)])
def test_a_few_are_told_and_how_many_more_there_are(capsys, count, lines):
    tell([f"file {number} is torn" for number in range(count)], "panel")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == lines
    assert all("panel: " in line for line in told)
    assert ("and 2 more files that cannot be read" in "".join(told)) == (count == 12)
