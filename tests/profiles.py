"""What the profile in a run's folder holds, as xprof would read it."""

from pathlib import Path

from jax.profiler import ProfileData


def _data(folder: Path) -> ProfileData:
    [file] = folder.glob("trace/plugins/profile/*/*.xplane.pb")
    return ProfileData.from_file(str(file))


def planes(folder: Path) -> set[str]:
    """The names of its planes that have events."""
    return {plane.name for plane in _data(folder).planes if any(True for line in plane.lines for _ in line.events)}


def annotated(folder: Path) -> dict[str, list[int]]:
    """The numbers of the steps in it, by the name of their loop."""
    found: dict[str, list[int]] = {}
    for plane in _data(folder).planes:
        for event in (event for line in plane.lines for event in line.events):
            stats = dict(event.stats)
            if "step_num" in stats:
                found.setdefault(event.name, []).append(int(stats["step_num"]))
    return {name: sorted(numbers) for name, numbers in found.items()}
