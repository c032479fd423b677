"""The contract between a chat template, its tokenizer and a dialog.

Every message's text stands in the rendering; the prompt ends where the model has to speak; the answer is the answer and one end
token; nothing else is scored. A template is any program, and users of every library have met ones that drop the system's
message, take lists of parts, ignore ``add_generation_prompt``, open a thought or trim what they are given, all without a word.

So a template is tried once for each order of roles, on texts that nothing else contains (:func:`learn`): that shows what it
leaves out, what stands between the prompt and an answer, and what ends a turn. Then each dialog is rendered and compared.
What cannot be mended is refused in one line.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from immunax.data.dialog import Dialog
from immunax.data.thought import after, left_open
from immunax.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWERER = "assistant"
_OTHER = "give another template with model.chat_template=FILE"


class Turn(NamedTuple):
    """How a template puts the assistant's turn after one order of roles.

    Attributes:
      parts: it wants each content as a list of parts.
      lacking: characters of the generation prompt that no finished dialog has, where that opens a thought.
      opening: what a finished dialog has between the generation prompt, without these, and the answer.
      header: what has to follow the rendered prompt before the model speaks, where the template ignores
        ``add_generation_prompt``.
      end: what follows the answer.
    """

    parts: bool
    lacking: int
    opening: str
    header: str
    end: str


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
    headers: dict[tuple[str, ...], tuple[bool, str]] = {}
    texts = []
    for place, dialog in enumerate(dialogs):
        roles = _roles(dialog)
        if roles not in headers:
            headers[roles] = _header(tokenizer, roles)
        parts, header = headers[roles]
        texts.append(_head(tokenizer, dialog, place, parts) + header)
    return texts


def written(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog]) -> list[Written]:
    """Dialogs split where the answer begins.

    What a template puts between its generation prompt and the answer (a role's header, a thought that is empty) belongs to the
    prompt, but for white space, which tokenizers join to the word behind it.

    Args:
      tokenizer: with a chat template.
      dialogs: with prompts.

    Raises:
      UserError: the template cannot render one, leaves out part of it, or has no place for the answer.
    """
    turns: dict[tuple[str, ...], Turn] = {}
    texts = []
    for place, dialog in enumerate(dialogs):
        roles = _roles(dialog)
        if not dialog.answer.strip():
            texts.append(Written(asked(tokenizer, [dialog])[0], ""))
            continue
        if roles not in turns:
            turns[roles] = learn(tokenizer, roles)
        texts.append(_written(tokenizer, dialog, place, turns[roles]))
    return texts


def end_token(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog) -> int:
    """The id of the one token that ends every answer: what the template puts after one where that is a token of its own, else
    the tokenizer's end of text.

    Args:
      tokenizer: with or without a chat template.
      dialog: whose roles the template is tried with.

    Raises:
      UserError: there is neither.
    """
    end = learn(tokenizer, _roles(dialog)).end.strip() if has_template(tokenizer) else ""
    ids = list(tokenizer(end, add_special_tokens=False)["input_ids"]) if end else []
    # A marker of ordinary text is no end token: its tokens stand in answers too.
    if ids and (ids[0] in tokenizer.added_tokens_decoder or ids[0] in tokenizer.all_special_ids):
        return ids[0]
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r} has no end-of-text token to end an answer; set eos_token"
        )
    return cast(int, tokenizer.eos_token_id)


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
    parts, header = _header(tokenizer, roles)
    head = _render(tokenizer, _probes(roles), parts, prompt=True)
    probes = _probes((*roles, _ANSWERER))
    full = _render(tokenizer, probes, parts, prompt=False)
    place = full.rfind(probes[-1][1])
    if place < 0:
        raise UserError(f"{_named(tokenizer)} leaves out the answer that the assistant gives; {_OTHER}")
    before, end = full[:place], full[place + len(probes[-1][1]) :]
    shared = next(
        (at for at, pair in enumerate(zip(head, before, strict=False)) if len(set(pair)) > 1),
        min(len(head), len(before)),
    )
    lacking, opening = head[shared:], before[shared:]
    if lacking and (opening.strip() or left_open(lacking) is None):
        raise UserError(
            f"{_named(tokenizer)} does not put the answer after its generation prompt; {_OTHER}, one whose generation prompt "
            "is a prefix of the finished dialog"
        )
    return Turn(parts, len(lacking), opening, header, end)


def _header(tokenizer: "PreTrainedTokenizerBase", roles: tuple[str, ...]) -> tuple[bool, str]:
    """Whether the template wants parts, and what a prompt lacks where the template ignores ``add_generation_prompt``."""
    parts = _wants_parts(tokenizer, roles)
    probes = _probes(roles)
    head = _render(tokenizer, probes, parts, prompt=True)
    if head != _render(tokenizer, probes, parts, prompt=False):
        return parts, ""
    answered = _probes((*roles, _ANSWERER))
    full = _render(tokenizer, answered, parts, prompt=False)
    before, found, _ = full.rpartition(answered[-1][1])
    if not found or not before.startswith(head):
        raise UserError(f"{_named(tokenizer)} has no place for the assistant's answer behind the prompt; {_OTHER}")
    # A blank before the answer is the first part of its first token.
    return parts, before[len(head) :].rstrip(" ") if before[len(head) :].strip() else ""


def _wants_parts(tokenizer: "PreTrainedTokenizerBase", roles: tuple[str, ...]) -> bool:
    probes, told = _probes(roles), None
    for parts in (False, True):
        try:
            text = _render(tokenizer, probes, parts, prompt=True)
        except UserError as error:
            told = told or error
            continue
        absent = [role for role, probe in probes if probe not in text]
        if not absent:
            return parts
        told = told or UserError(
            f"{_named(tokenizer)} leaves out messages of the role {absent[0]!r}; use data or an attack without them, or {_OTHER}"
        )
    assert told is not None
    raise told


def _written(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog, place: int, turn: Turn) -> Written:
    head = _head(tokenizer, dialog, place, turn.parts)
    turns = [(message.role, message.content) for message in dialog.prompt]
    full = _render(tokenizer, [*turns, (_ANSWERER, dialog.answer)], turn.parts, prompt=False)
    begun = head[: len(head) - turn.lacking]
    # An answer that brings a thought of its own is laid out otherwise than one without.
    for before in (begun + turn.opening, begun):
        if full.startswith(before) and full.endswith(turn.end):
            answer = full[len(before) : len(full) - len(turn.end)]
            if "".join(answer.split()) == "".join(dialog.answer.split()):
                return _opened(head, before, answer, turn)
    raise UserError(
        f"{_named(tokenizer)} does not keep the text of the assistant's answer (dialog {place}); leave such dialogs out, "
        f"or {_OTHER}"
    )


def _opened(head: str, before: str, answer: str, turn: Turn) -> Written:
    if turn.lacking:
        closing = left_open(head) or ""
        return Written(f"{head.rstrip()}\n\n{closing}\n\n", answer)
    opening = before[len(head) :]
    kept = opening if opening.strip() else ""
    if turn.header:
        kept = kept.rstrip(" ")
    return Written(head + kept, before[len(head) + len(kept) :] + answer)


def _head(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog, place: int, parts: bool) -> str:
    turns = [(message.role, message.content) for message in dialog.prompt]
    text = _render(tokenizer, turns, parts, prompt=True)
    for role, content in turns:
        # Templates of models that think leave out the thoughts of earlier turns, as those models were trained.
        said = after(content, open_at_start=False) if role == _ANSWERER else content
        if content.strip() not in text and (said or content).strip() not in text:
            raise UserError(
                f"{_named(tokenizer)} does not keep the text of the {role}'s message (dialog {place}); leave such dialogs out, "
                f"or {_OTHER}"
            )
    return text


def _render(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[tuple[str, str]], parts: bool, *, prompt: bool
) -> str:
    messages = [
        {"role": role, "content": [{"type": "text", "text": content}] if parts else content} for role, content in turns
    ]
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt, **template_args(tokenizer)
            )
        )
    except Exception as error:  # a template is a program of somebody else's, and may raise anything
        reason = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
        raise UserError(
            f"{_named(tokenizer)} cannot render the roles {', '.join(role for role, _ in turns)} ({reason}); use dialogs that "
            f"it knows, or {_OTHER}"
        ) from error


def _probes(roles: Sequence[str]) -> list[tuple[str, str]]:
    """Messages of these roles whose texts nothing else contains."""
    return [(role, f"zqx{number}jvk") for number, role in enumerate(roles)]


def _roles(dialog: Dialog) -> tuple[str, ...]:
    return tuple(message.role for message in dialog.prompt)


def _named(tokenizer: "PreTrainedTokenizerBase") -> str:
    return f"the chat template of {tokenizer.name_or_path!r}"
