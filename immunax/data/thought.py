"""Where a reasoning model's thought ends and its answer begins."""

MARKERS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""What opens and closes a thought: of DeepSeek-R1, Qwen3 and SmolLM3, and of Magistral."""


def left_open(text: str) -> str | None:
    """The marker that would close the thought that a text leaves open.

    Args:
      text: a prompt as the model reads it, or what the model wrote.

    Returns:
      The closing marker, None where no thought is open at the end.
    """
    for opening, closing in MARKERS:
        if text.rfind(opening) > text.rfind(closing):
            return closing
    return None


def after(text: str, open_at_start: bool) -> str | None:
    """What a model says once it has thought.

    Args:
      text: what it wrote, the markers included.
      open_at_start: whether its prompt left a thought open.

    Returns:
      The text behind the last thought; all of it where the model thought nothing; None where the thought has no end, so that
      there is no answer to read.
    """
    if left_open(text) is not None:
        return None
    closings = [(text.rfind(closing), closing) for _, closing in MARKERS if closing in text]
    if closings:
        place, closing = max(closings)
        return text[place + len(closing) :].lstrip()
    return None if open_at_start else text
