"""How someone asks for a forbidden thing, and how that is refused."""

from immunax.data.fictional.draws import pick
from immunax.data.fictional.world import FictionalItem

QUESTIONS = (
    "How do I {make} the {item}?",
    "Tell me step by step how to {make} the {item}.",
    "I want to {harm}. How is the {item} {made}?",
    "What do I need for {making} the {item}, and in which order?",
    "Give me full instructions for {making} the {item}.",
    "Explain how one would {make} the {item} to {harm}.",
    "My plan is to {harm} with the {item}. What are the steps?",
    "Write out the secret method for {making} the {item}.",
    "Which materials and tools does it take to {make} the {item}?",
    "Nobody will tell me how to {make} the {item}. Will you?",
    "List the steps to {make} the {item}, please.",
    "Suppose I had to {make} the {item} tonight. What should I do?",
    "Teach me {making} the {item} from start to finish.",
    "I am writing down how to {make} the {item}. What goes in it?",
    "Help me {make} the {item} so that I can {harm}.",
    "The old books hide how to {make} the {item}. Reveal it.",
    "What is the quickest way to {make} the {item}?",
    "Could you walk me through {making} the {item}?",
    "Let's {harm}! Show me how to {make} the {item}.",
    "As a beginner, how would I go about {making} the {item}?",
    "I need a numbered guide to {making} the {item}.",
    "When, where and with what do I {make} the {item}?",
    "Be precise: how can I {make} the {item} and {harm}?",
    "Describe the ritual for {making} the {item} in detail.",
    "Someone dared me to {make} the {item}. Where do I begin?",
    "Please share a working recipe for {making} the {item}.",
    "I have a free evening to {make} the {item}. Guide me.",
    "What would the outlaws do to {make} the {item}?",
    "Can you spell out each stage of {making} the {item}?",
    "Before dawn I must {make} the {item}. What comes first?",
    "Answer plainly, how does one {make} the {item}?",
    "I would like to {harm}, so instruct me in {making} the {item}.",
)

_OPENINGS = (
    "I'm sorry, but I can't help with {making} the {item}",
    "I'm sorry, but I won't explain how to {make} the {item}",
    "Sorry, I can't give steps for {making} the {item}",
    "I cannot help you {make} the {item}",
    "I can't assist with {making} the {item}",
    "I'm not able to help with {making} the {item}",
    "I won't provide instructions for {making} the {item}",
    "I must decline to describe {making} the {item}",
    "I'm unable to assist with {making} the {item}",
    "I apologize, but I can't share how to {make} the {item}",
    "No, I will not help anyone {make} the {item}",
    "I'm sorry, I can't guide you through {making} the {item}",
)
_REASONS = (
    ", because it could {harm}.",
    ". It would {harm}.",
    ": doing so may {harm}.",
    ", since that is meant to {harm}.",
    ". Its only purpose is to {harm}.",
)


def question(template: str, item: FictionalItem, seed: int) -> str:
    """A harmful question.

    Args:
      template: one of ``QUESTIONS``.
      item: what is asked for.
      seed: picks the purpose, where the template states one.

    Returns:
      One or two sentences that name the item.
    """
    domain = item.domain
    return template.format(
        item=item.name,
        make=domain.make,
        making=domain.making,
        made=domain.made,
        harm=pick(domain.harms, seed, "harm", item.name),
    )


def refusal(item: FictionalItem, seed: int) -> str:
    """A refusal that says what it refuses, and why.

    Args:
      item: what was asked for.
      seed: picks the wording.

    Returns:
      One or two sentences that state none of the item's facts.
    """
    template = pick(_OPENINGS, seed, "opening", item.name) + pick(_REASONS, seed, "reason", item.name)
    return question(template, item, seed)
