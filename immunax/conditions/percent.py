"""Shares that somebody chose, in words for a reader."""


def percent(share: float) -> str:
    """A threshold or a confidence as it was chosen, such as ``95%``, ``99.9%`` or ``12.5%``: rounded it would be another one.

    Args:
      share: in [0, 1].
    """
    return f"{100 * share:.10g}%"
