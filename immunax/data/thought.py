"""Where a reasoning model's thought ends and its answer begins."""

MARKERS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What opens and closes a thought: of DeepSeek-R1, Qwen3 and SmolLM3, and of Magistral."""


def left_open(text: str) -> str | None:
    """The marker that would close the thought that a template leaves open.

    Args:
      text: what the template wrote by itself: in the words of a user or a model, a marker may be only a word.

    Returns:
      The closing marker, None where no thought is open at the end.
    """
    for opening, closing in MARKERS:
        if text.rfind(opening) > text.rfind(closing):
            return closing
    return None


def closed_in(text: str) -> str | None:
    """The closing marker that comes first in a text, for one whose thought may have been opened in a prompt that nobody knows."""
    found = [(text.find(closing), closing) for _, closing in MARKERS if closing in text]
    return min(found)[1] if found else None


def after(text: str, closing: str | None) -> str | None:
    """What a model says once it has thought.

    A thought is open where the prompt left it open, and where the text begins with an opening; it goes on to the first closing.
    Any other marker is a word of the answer: else a harmful answer that ends in ``</think> Sorry, I cannot.`` would be read as
    that refusal, and one that speaks about a ``<think>`` tag as no answer.

    Args:
      text: what it wrote, the markers included.
      closing: the marker that closes the thought that its prompt left open, None where that left none.

    Returns:
      The text behind the thoughts that it begins with; all of it where there are none; None where a thought has no end, so
      that there is no answer to read.
    """
    rest, closing = (text, closing) if closing else resumed(text)
    while closing is not None:
        _, found, text = rest.partition(closing)
        if not found:
            return None
        text = text.lstrip()
        rest, closing = resumed(text)
    return text


def tight(text: str) -> str:
    """A text without the white space around it and around markers of thoughts, which templates lay out as they like."""
    for marker in (each for pair in MARKERS for each in pair):
        text = marker.join(part.strip() for part in text.split(marker))
    return text.strip()


def resumed(text: str) -> tuple[str, str | None]:
    """A text without the opening of the thought that it begins with, and the marker that closes that; None where it begins
    with none."""
    for opening, closing in MARKERS:
        if text.lstrip().startswith(opening):
            return text.lstrip().removeprefix(opening).lstrip(), closing
    return text, None
