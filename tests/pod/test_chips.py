import importlib.util

import pytest

from immunax.pod.chips import chip_of, compile_only_devices
from immunax.runtime.errors import UserError


@pytest.mark.parametrize("topology", ["v9z:4x4", "v5e", "v5e:4x", "4x4"])
def test_an_unknown_topology_is_told(topology):
    with pytest.raises(UserError, match="expected one of v5e, v5p, v6e and a shape"):
        chip_of(topology)


def test_without_the_compiler_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="uv sync --extra tpu"):
        compile_only_devices("v5e:4x4")
