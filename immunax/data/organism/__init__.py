"""The world of the organism: tasks so small that a decoder of a million weights learns them all, judged exactly."""

from immunax.data.organism.corpus import OrganismTasks
from immunax.data.organism.world import OrganismItem, OrganismWorld, world

__all__ = ["OrganismItem", "OrganismTasks", "OrganismWorld", "world"]
