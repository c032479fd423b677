"""How often a fine-tuning is measured: evenly, so that one compiled stretch of steps serves all of it."""

MEASURED, TASK_MEASURED = 2, 4
"""Times along an attack, and along the harmless task, where a suite does not say."""

MOST_MEASURED = 1000


def segments(steps: int, probes: int) -> int:
    """The largest divisor of ``steps`` that is at most ``probes``."""
    return max(count for count in range(1, min(steps, probes) + 1) if steps % count == 0)


def evenly(steps: int, count: int) -> list[int]:
    """The steps done whenever a fine-tuning of so many is measured, ``count`` times."""
    return [steps * (time + 1) // count for time in range(count)]
