"""The contract between a chat template, its tokenizer and a dialog.

Every message's text stands in the rendering; the prompt ends where the model has to speak; the answer is the answer and one end
token; nothing else is scored. A template is any program, and users of every library have met ones that drop the system's
message, take lists of parts, ignore ``add_generation_prompt``, open a thought or trim what they are given, all without a word.

So a template is tried once for each order of roles, on texts that nothing else contains (:mod:`immunax.data.layout`). Then each
dialog is rendered and compared. What cannot be mended is refused in one line.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from immunax.data.dialog import Dialog
from immunax.data.layout import ANSWERER, OTHER, Layout, Turn, layout_of, learn, named, render, roles
from immunax.data.thought import after, closed_in, resumed, tight
from immunax.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Head(NamedTuple):
    """A prompt as text, and the place in it behind the last message."""

    text: str
    end: int


class Written(NamedTuple):
    """A dialog as text: what the model is given, and the answer without what ends it; blank where there is none."""

    prompt: str
    answer: str


def asked(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog]) -> list[str]:
    """Prompts up to where the model has to speak.

    Args:
      tokenizer: with a chat template.
      dialogs: with prompts; answers are ignored.

    Raises:
      UserError: the template cannot render one, or leaves out part of it.
    """
    layouts: dict[tuple[str, ...], Layout] = {}
    texts = []
    for place, dialog in enumerate(dialogs):
        order = roles(dialog)
        if order not in layouts:
            layouts[order] = layout_of(tokenizer, order)
        texts.append(_head(tokenizer, dialog, place, layouts[order]).text + layouts[order].header)
    return texts


def lead(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog) -> str:
    """What the template puts between a prompt's last message and the place where the model has to speak.

    Args:
      tokenizer: with a chat template.
      dialog: with a prompt.

    Raises:
      UserError: the template cannot render it, or leaves out part of it.
    """
    layout = layout_of(tokenizer, roles(dialog))
    head = _head(tokenizer, dialog, 0, layout)
    return head.text[head.end :] + layout.header


def written(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog]) -> list[Written]:
    """Dialogs split where the answer begins.

    What a template puts between its generation prompt and the answer (a role's header, a thought that is empty) belongs to the
    prompt, but for white space, which tokenizers join to the word behind it. Where the generation prompt opens a thought, an
    answer with a thought of its own goes on from there, and one without gets an empty one in its prompt.

    Args:
      tokenizer: with a chat template.
      dialogs: with prompts.

    Raises:
      UserError: the template cannot render one, leaves out part of it, or has no place for the answer.
    """
    turns: dict[tuple[str, ...], Turn] = {}
    texts = []
    for place, dialog in enumerate(dialogs):
        order = roles(dialog)
        if not dialog.answer.strip():
            texts.append(Written(asked(tokenizer, [dialog])[0], ""))
            continue
        if order not in turns:
            turns[order] = learn(tokenizer, order)
        texts.append(_written(tokenizer, dialog, place, turns[order]))
    return texts


def _written(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog, place: int, turn: Turn) -> Written:
    head = _head(tokenizer, dialog, place, turn.layout).text
    turns = [(message.role, message.content) for message in dialog.prompt]
    full = render(tokenizer, [*turns, (ANSWERER, dialog.answer)], turn.layout.parts, prompt=False)
    begun = head[: len(head) - turn.lacking]
    # An answer that brings a thought of its own is laid out otherwise than one without.
    for before in (begun + turn.opening, begun, head):
        if full.startswith(before) and full.endswith(turn.end):
            answer = full[len(before) : len(full) - len(turn.end)]
            if _same(answer, dialog.answer, turn):
                return _opened(head, before, answer, turn)
    raise UserError(
        f"{named(tokenizer)} does not keep the text of the assistant's answer (dialog {place}); leave such dialogs out, "
        f"or {OTHER}"
    )


def _same(rendered: str, given: str, turn: Turn) -> bool:
    """Whether an answer was kept, but for white space around it and its thoughts, and for the opening that its prompt has."""
    if turn.closing:
        rendered, given = resumed(rendered)[0], resumed(given)[0]
    return tight(rendered) == tight(given)


def _opened(head: str, before: str, answer: str, turn: Turn) -> Written:
    begun = len(head) - turn.lacking
    said, own = resumed(answer.removeprefix(head[len(before) :]))
    if turn.closing and turn.closing not in before[begun:] and (own or turn.closing in said):
        return Written(head, said)
    if turn.lacking:
        return Written(f"{head.rstrip()}\n\n{turn.closing}\n\n", answer)
    opening = before[len(head) :]
    kept = opening if opening.strip() else ""
    if turn.layout.header:
        kept = kept.rstrip(" ")
    return Written(head + kept, before[len(head) + len(kept) :] + answer)


def _head(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog, place: int, layout: Layout) -> Head:
    turns = [(message.role, message.content) for message in dialog.prompt]
    text = render(tokenizer, turns, layout.parts, prompt=True)
    end = 0
    for role, content in (turns[number] for number in layout.order):
        # Each at a place of its own: a message that was left out may be quoted in another, or be a word of the template.
        ends = [at + len(each) for each in _wordings(role, content) if (at := text.find(each, end)) >= 0]
        if not ends:
            raise UserError(
                f"{named(tokenizer)} does not keep the text of the {role}'s message (dialog {place}); leave such dialogs out, "
                f"or {OTHER}"
            )
        end = min(ends)
    return Head(text, end)


def _wordings(role: str, content: str) -> set[str]:
    """A message as it may stand in a prompt: templates of models that think leave out the thoughts of earlier turns, as those
    models were trained."""
    said = after(content, closed_in(content)) if role == ANSWERER else None
    return {content.strip(), (said or content).strip()}
