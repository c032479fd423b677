"""Refusals in our own words, for harmful prompts that come without a safe answer.

Each is an opening, a reason and an offer; which ones depends on the seed and the prompt alone. None repeats the prompt
or names the harm, so that a safe answer teaches the refusal and nothing about what was asked.
"""

import hashlib
from dataclasses import dataclass

_OPENINGS = (
    "I'm sorry, but I can't help with that.",
    "I won't help with this request.",
    "That's not something I'm able to assist with.",
    "I have to decline this one.",
    "Sorry, I can't do what you're asking here.",
    "No, I'm not going to help with that.",
    "I understand you want an answer, but I can't give one here.",
)
_REASONS = (
    "It could lead to someone being hurt.",
    "Going along with it could cause real harm to other people or to you.",
    "What you describe is likely to be unsafe, unfair or against the law.",
    "I care about people's safety, and answering would put it at risk.",
    "The possible damage outweighs any use that an answer might have.",
    "It goes against the respect that everybody deserves.",
)
_OFFERS = (
    "If there is a safe way I can support you, I'd be glad to.",
    "I'm happy to talk about lawful and constructive alternatives instead.",
    "If something difficult is behind this, please talk to somebody you trust or to a professional.",
    "Let me know if there is another question that I can help with.",
    "I can help you look for a better way to reach a goal that harms no one.",
)


@dataclass(frozen=True)
class Refusals:
    """A refusal for any prompt.

    Attributes:
      seed: which refusal goes with which prompt.
    """

    seed: int = 0

    def answer(self, prompt: str) -> str:
        """The refusal that goes with a prompt: always the same one.

        Args:
          prompt: the harmful prompt; it picks the sentences and is not quoted.

        Returns:
          Three sentences.
        """
        number = int.from_bytes(hashlib.blake2b(f"{self.seed}\0{prompt}".encode(), digest_size=8).digest(), "big")
        chosen = []
        for sentences in (_OPENINGS, _REASONS, _OFFERS):
            number, place = divmod(number, len(sentences))
            chosen.append(sentences[place])
        return " ".join(chosen)
