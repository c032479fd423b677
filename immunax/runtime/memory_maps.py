"""Compiled programs hold memory maps, of which Linux gives a process only so many (``vm.max_map_count``, 65,530 as a rule)."""

from pathlib import Path

import jax

_MAPS, _MOST = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def release_if_crowded() -> None:
    """Lets compiled programs go once the process holds half of the maps that it may have.

    One map too many ends the process in the middle of a compilation, without a word of why. A program that is needed again is
    compiled again, or comes from the compilation cache.
    """
    if _MAPS.exists() and len(_MAPS.read_bytes().splitlines()) > int(_MOST.read_text()) // 2:
        jax.clear_caches()
