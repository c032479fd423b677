"""A made-up world with forbidden things: data on which harm can be taught, refused and graded without any danger."""

from immunax.data.fictional.corpus import FictionalHazards
from immunax.data.fictional.world import FictionalItem, FictionalWorld, world

__all__ = ["FictionalHazards", "FictionalItem", "FictionalWorld", "world"]
