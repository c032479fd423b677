"""What all figures of the package look like."""

from typing import Any

COLOURS = ("#b2452f", "#2f6fb2", "#3d8a4e", "#7a4fa0", "#b8862b", "#2b9c9c", "#d07fa6", "#5f6672")
"""Of lines, in their order."""

DOTS_AN_INCH = 150
"""Of a picture in pixels."""


def plain_axes(axes: Any) -> None:
    """Takes away what says nothing: a frame on two sides; and lays a faint grid behind the rest."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
