import jax
import pytest

from immunax.runtime import memory_maps


@pytest.mark.skipif(not memory_maps._MAPS.exists(), reason="the system does not tell of its memory maps")
def test_programs_are_let_go_once_they_hold_half_of_the_maps_and_not_before(tmp_path, monkeypatch):
    double = jax.jit(lambda x: 2 * x)
    assert double(1.0) == 2
    memory_maps.release_if_crowded()
    assert double._cache_size() == 1
    (tmp_path / "most").write_text("10\n")
    monkeypatch.setattr(memory_maps, "_MOST", tmp_path / "most")
    memory_maps.release_if_crowded()
    assert double._cache_size() == 0
    assert double(1.0) == 2
