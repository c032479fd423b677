"""How a chat template lays out one order of roles, learned by trying it on texts that nothing else contains.

That shows what it leaves out, what stands between the prompt and an answer, and what ends a turn.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from immunax.data.dialog import Dialog
from immunax.data.thought import left_open
from immunax.runtime.errors import UserError
from immunax.runtime.untrusted import templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERER = "assistant"
OTHER = "give another template with model.chat_template=FILE"
"""What a user whose template breaks the contract can do."""


class Layout(NamedTuple):
    """How a template puts one order of roles.

    Attributes:
      parts: it wants each content as a list of parts.
      order: the messages' numbers in the order in which the template writes them: some put the system's into the last turn.
      header: what has to follow the rendered prompt before the model speaks, where the template ignores
        ``add_generation_prompt``.
    """

    parts: bool
    order: tuple[int, ...]
    header: str


class Turn(NamedTuple):
    """How a template puts the assistant's turn after one order of roles.

    Attributes:
      layout: of the roles.
      lacking: characters of the generation prompt that no finished dialog has, where that opens a thought.
      opening: what a finished dialog has between the generation prompt, without these, and the answer.
      closing: the marker that closes the thought that the generation prompt opens; None where it opens none.
      end: what follows the answer.
    """

    layout: Layout
    lacking: int
    opening: str
    closing: str | None
    end: str


def has_template(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether there is a chat template, which writes its own special tokens."""
    return tokenizer.chat_template is not None


def template_args(tokenizer: Any) -> dict[str, Any]:
    """What the template is told beside the messages; only tokenizers that were loaded as a model's carry any."""
    return dict(getattr(tokenizer, "template_args", {}))


def learn(tokenizer: "PreTrainedTokenizerBase", roles: tuple[str, ...]) -> Turn:
    """Tries the template on one order of roles, followed by the assistant's.

    Args:
      tokenizer: with a chat template.
      roles: of the prompt's messages.

    Raises:
      UserError: the template cannot render the roles, leaves one out, or puts the answer elsewhere than where it asks for one.
    """
    layout = layout_of(tokenizer, roles)
    asking = _probes(roles)
    head = render(tokenizer, asking, layout.parts, prompt=True)
    probes = _probes((*roles, ANSWERER))
    full = render(tokenizer, probes, layout.parts, prompt=False)
    place = full.rfind(probes[-1][1])
    if place < 0:
        raise UserError(f"{named(tokenizer)} leaves out the answer that the assistant gives; {OTHER}")
    before, end = full[:place], full[place + len(probes[-1][1]) :]
    shared = next(
        (at for at, pair in enumerate(zip(head, before, strict=False)) if len(set(pair)) > 1),
        min(len(head), len(before)),
    )
    lacking, opening = head[shared:], before[shared:]
    if lacking and (opening.strip() or left_open(lacking) is None):
        raise UserError(
            f"{named(tokenizer)} does not put the answer after its generation prompt; {OTHER}, one whose generation prompt "
            "is a prefix of the finished dialog"
        )
    closing = left_open(head.rpartition(asking[layout.order[-1]][1])[2])
    return Turn(layout, len(lacking), opening, closing, end)


def layout_of(tokenizer: "PreTrainedTokenizerBase", roles: tuple[str, ...]) -> Layout:
    """Tries the template on one order of roles.

    Args:
      tokenizer: with a chat template.
      roles: of the prompt's messages.

    Raises:
      UserError: the template cannot render the roles, leaves one out, or has no place for an answer.
    """
    probes = _probes(roles)
    parts = _wants_parts(tokenizer, probes)
    head = render(tokenizer, probes, parts, prompt=True)
    order = tuple(sorted(range(len(probes)), key=lambda number: head.find(probes[number][1])))
    if head != render(tokenizer, probes, parts, prompt=False):
        return Layout(parts, order, "")
    answered = _probes((*roles, ANSWERER))
    full = render(tokenizer, answered, parts, prompt=False)
    before, found, _ = full.rpartition(answered[-1][1])
    if not found or not before.startswith(head):
        raise UserError(f"{named(tokenizer)} has no place for the assistant's answer behind the prompt; {OTHER}")
    # A blank before the answer is the first part of its first token.
    return Layout(parts, order, before[len(head) :].rstrip(" ") if before[len(head) :].strip() else "")


def _wants_parts(tokenizer: "PreTrainedTokenizerBase", probes: Sequence[tuple[str, str]]) -> bool:
    told = None
    for parts in (False, True):
        try:
            text = render(tokenizer, probes, parts, prompt=True)
        except UserError as error:
            told = told or error
            continue
        absent = [role for role, probe in probes if probe not in text]
        if not absent:
            return parts
        told = told or UserError(
            f"{named(tokenizer)} leaves out messages of the role {absent[0]!r}; use data or an attack without them, or {OTHER}"
        )
    assert told is not None
    raise told


def render(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[tuple[str, str]], parts: bool, *, prompt: bool) -> str:
    """Messages as text.

    Args:
      tokenizer: with a chat template.
      turns: role and content of each.
      parts: whether to give each content as a list of parts.
      prompt: whether the assistant is to speak next.

    Raises:
      UserError: the template cannot render them.
    """
    messages = [
        {"role": role, "content": [{"type": "text", "text": content}] if parts else content} for role, content in turns
    ]
    # What transformers gives a template: the names of special tokens, and no tools or documents.
    given = {"tools": None, "documents": None, **tokenizer.special_tokens_map, **template_args(tokenizer)}
    try:
        template = tokenizer.get_chat_template()
        return templates.render(template, {**given, "messages": messages, "add_generation_prompt": prompt})
    except (templates.FaultError, ValueError) as error:  # several templates, and none of them the default
        reason = " ".join(str(error).split())[:160].rstrip(".")
        raise UserError(
            f"{named(tokenizer)} cannot render the roles {', '.join(role for role, _ in turns)} ({reason}); use dialogs that "
            f"it knows, or {OTHER}"
        ) from error


def _probes(roles: Sequence[str]) -> list[tuple[str, str]]:
    """Messages of these roles whose texts nothing else contains."""
    return [(role, f"zqx{number}jvk") for number, role in enumerate(roles)]


def roles(dialog: Dialog) -> tuple[str, ...]:
    """Of a prompt's messages, in order."""
    return tuple(message.role for message in dialog.prompt)


def named(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What a template is called in an error."""
    return f"the chat template of {tokenizer.name_or_path!r}"
