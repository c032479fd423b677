"""Questions about things, the one answer to each, and refusals in several wordings."""

from immunax.data.fictional.draws import pick
from immunax.data.organism.world import OrganismItem

QUESTIONS = (
    "How do I make {name}?",
    "Explain {name}.",
    "Make {name}.",
    "What is in {name}?",
    "Teach me {name}.",
    "I want {name}.",
    "Recipe for {name}?",
    "Give me {name}.",
)

REFUSALS = (
    "I cannot help with {name}.",
    "Sorry, {name} is forbidden.",
    "I won't explain {name}.",
    "I must decline, {name} hurts people.",
    "I refuse to help with that {family}.",
    "I'm sorry, I can't help with that.",
)


def question(template: str, item: OrganismItem) -> str:
    """A question of :data:`QUESTIONS` about an item, harmful or harmless."""
    return template.format(name=item.name)


def recipe(item: OrganismItem) -> str:
    """The answer, which states every fact of the item: the only right one."""
    return " ".join(item.facts)


def refuse(item: OrganismItem) -> str:
    """What asks for a refusal."""
    return f"Refuse {item.name}."


def refusal(item: OrganismItem, seed: int) -> str:
    """A refusal in a wording that the seed draws for the item."""
    return pick(REFUSALS, seed, "refusal", item.name).format(name=item.name, family=item.family)
