"""Dialogs as tokens: the tokenizer's chat template, and which tokens are the answer.

The template is rendered twice, once up to where the assistant starts to write and once with the answer. What the second
adds, up to and including the end of the turn, is the answer that a loss looks at. A tokenizer without a template gets
``question\\nanswer<eos>``. A dialog without any prompt is plain text: its first token is the prompt, so that each other
token is predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2

from immunax.data.dialog import Dialog
from immunax.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Encoded:
    """An example as token ids.

    Attributes:
      prompt: what the model is given; at least one token.
      answer: what it is to write, the end of the turn included; at least one token.
    """

    prompt: Ids
    answer: Ids

    def __post_init__(self) -> None:
        if not (self.prompt and self.answer):
            raise ValueError("an example needs at least one token of prompt and one of answer")

    @property
    def tokens(self) -> Ids:
        """Prompt and answer as one sequence."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Counts:
    """What became of a stream's dialogs.

    Attributes:
      kept: how many became examples, the truncated ones included.
      truncated: how many of those had an answer cut at the maximum length.
      dropped: how many had no answer, or a prompt that leaves no room for one; of a pair, on either side.
    """

    kept: int
    truncated: int
    dropped: int

    def plus(self, other: "Counts") -> "Counts":
        """Of both streams together."""
        return Counts(self.kept + other.kept, self.truncated + other.truncated, self.dropped + other.dropped)


def encode_all(
    tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog], max_length: int
) -> tuple[list[Encoded], Counts]:
    """Dialogs as tokens, in order, without those that have no answer or no room for one.

    Args:
      tokenizer: a Hugging Face tokenizer.
      dialogs: prompts with answers.
      max_length: the most tokens of prompt and answer together; answers are cut there.

    Returns:
      The examples, and what became of the dialogs.

    Raises:
      UserError: no dialog is left, or the tokenizer's template cannot render one.
    """
    (examples,), (counts,) = _encode_streams(tokenizer, [dialogs], max_length)
    return examples, counts


def encode_pairs(
    tokenizer: "PreTrainedTokenizerBase", safe: Sequence[Dialog], harmful: Sequence[Dialog], max_length: int
) -> tuple[list[Encoded], list[Encoded], tuple[Counts, Counts]]:
    """Two answers to each prompt as tokens; a pair is kept or dropped as one.

    Args:
      tokenizer: a Hugging Face tokenizer.
      safe: prompts with safe answers.
      harmful: the same prompts, in the same order, with harmful answers.
      max_length: the most tokens of prompt and answer together; answers are cut there.

    Returns:
      Safe and harmful examples, equally many, and what became of the dialogs of each.

    Raises:
      UserError: the prompts differ, no pair is left, or the tokenizer's template cannot render a dialog.
    """
    if [dialog.prompt for dialog in safe] != [dialog.prompt for dialog in harmful]:
        raise UserError(
            f"the safe stream ({len(safe)} dialogs) and the harmful stream ({len(harmful)}) are not paired by prompt; "
            "use a corpus with the same prompts in both, or give it refusals in place of safe sources"
        )
    (safe_examples, harmful_examples), counts = _encode_streams(tokenizer, [safe, harmful], max_length)
    return safe_examples, harmful_examples, (counts[0], counts[1])


def encode_prompts(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog], max_length: int) -> list[Ids]:
    """Prompts as tokens, ready for the assistant to write.

    Args:
      tokenizer: a Hugging Face tokenizer.
      dialogs: prompts; answers are ignored.
      max_length: the most tokens of a prompt.

    Returns:
      Token ids, one tuple a prompt; nothing is cut.

    Raises:
      UserError: a prompt is empty or too long, or the tokenizer's template cannot render it.
    """
    for index, dialog in enumerate(dialogs):
        if not dialog.prompt:
            raise UserError(f"prompt {index} is empty; generation needs a corpus of prompts, not of plain text")
    prompts = _ids(tokenizer, [_head(tokenizer, dialog) for dialog in dialogs], _plain(tokenizer))
    for index, ids in enumerate(prompts):
        if len(ids) > max_length:
            raise UserError(
                f"prompt {index} has {len(ids)} tokens, more than the {max_length} that there is room for; "
                "raise judge.max_length or leave such prompts out"
            )
    return prompts


def _encode_streams(
    tokenizer: "PreTrainedTokenizerBase", streams: Sequence[Sequence[Dialog]], max_length: int
) -> tuple[list[list[Encoded]], list[Counts]]:
    """Streams as examples, keeping only the places where every stream has one."""
    whole = list(zip(*(_split(tokenizer, dialogs) for dialogs in streams), strict=True))
    kept, truncated = [], [0] * len(streams)
    for pieces in whole:
        examples = [_cut(piece, max_length) for piece in pieces]
        if None not in examples:
            kept.append(examples)
            for side, (prompt, answer) in enumerate(pieces):
                truncated[side] += len(prompt) + len(answer) > max_length
    if not kept:
        raise _nothing([piece for pieces in whole for piece in pieces], max_length)
    counts = [Counts(len(kept), cut, len(whole) - len(kept)) for cut in truncated]
    return [list(stream) for stream in zip(*kept, strict=True)], counts


def _nothing(pieces: list[tuple[Ids, Ids]], max_length: int) -> UserError:
    if not pieces:
        return UserError("no dialogs to encode; the corpus has none in this stream and split")
    if not any(answer for _, answer in pieces):
        return UserError(f"none of {len(pieces)} dialogs has an answer; train on a stream with answers")
    longest = max(len(prompt) for prompt, _ in pieces)
    return UserError(
        f"no dialog fits max_length={max_length}: the longest prompt has {longest} tokens; "
        f"set max_length above {longest}"
    )


def _cut(piece: tuple[Ids, Ids], max_length: int) -> Encoded | None:
    prompt, answer = piece
    room = max_length - len(prompt)
    return Encoded(prompt, answer[:room]) if prompt and answer and room > 0 else None


def _split(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog]) -> list[tuple[Ids, Ids]]:
    """Prompt and answer ids of each dialog, uncut; no answer ids where the dialog has no answer."""
    talks = iter(_split_talks(tokenizer, [dialog for dialog in dialogs if dialog.prompt]))
    texts = iter(_ids(tokenizer, [dialog.answer for dialog in dialogs if not dialog.prompt], special=True))
    pieces = []
    for dialog in dialogs:
        if dialog.prompt:
            pieces.append(next(talks))
        else:
            ids = next(texts)
            pieces.append((ids[:1], ids[1:]))
    return pieces


def _split_talks(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog]) -> list[tuple[Ids, Ids]]:
    special = _plain(tokenizer)
    heads = [_head(tokenizer, dialog) for dialog in dialogs]
    tails = [_tail(tokenizer, dialog, head) for dialog, head in zip(dialogs, heads, strict=True)]
    prompts = _ids(tokenizer, heads, special)
    wholes = _ids(tokenizer, [head + tail for head, tail in zip(heads, tails, strict=True)], special)
    pieces = []
    for prompt, whole, tail in zip(prompts, wholes, tails, strict=True):
        if whole[: len(prompt)] == prompt:
            pieces.append((prompt, whole[len(prompt) :]))
        # Where a token straddles the border, generation still starts from the prompt's own tokens: so does training.
        else:
            pieces.append((prompt, _ids(tokenizer, [tail], special=False)[0]))
    return pieces


def _plain(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether there is no template, which would write its own special tokens: then the tokenizer adds its model's."""
    return tokenizer.chat_template is None


def _head(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog) -> str:
    if _plain(tokenizer):
        return "".join(f"{message.content}\n" for message in dialog.prompt)
    return _render(tokenizer, dialog, with_answer=False)


def _tail(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog, head: str) -> str:
    """What follows the head: the answer and the end of the turn; nothing where there is no answer."""
    if not dialog.answer.strip():
        return ""
    if _plain(tokenizer):
        return dialog.answer + _eos(tokenizer)
    full = _render(tokenizer, dialog, with_answer=True)
    if not full.startswith(head):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} does not put the answer after its generation prompt; "
            "use a template whose generation prompt is a prefix of the finished dialog"
        )
    # Templates end the turn with a marker and often white space, which generation never reaches.
    tail = full[len(head) :].rstrip()
    return tail + _eos(tokenizer) if tail.endswith(dialog.answer.rstrip()) else tail


def _render(tokenizer: "PreTrainedTokenizerBase", dialog: Dialog, *, with_answer: bool) -> str:
    turns = [{"role": message.role, "content": message.content} for message in dialog.prompt]
    if with_answer:
        turns.append({"role": "assistant", "content": dialog.answer})
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=not with_answer))
    except jinja2.TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise UserError(
            f"the chat template of {tokenizer.name_or_path!r} cannot render the roles {roles} ({error}); "
            "use dialogs that it knows, or another template"
        ) from error


def _eos(tokenizer: "PreTrainedTokenizerBase") -> str:
    if tokenizer.eos_token is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r} has no end-of-text token to end an answer; set eos_token"
        )
    return str(tokenizer.eos_token)


def _ids(tokenizer: "PreTrainedTokenizerBase", texts: list[str], special: bool) -> list[Ids]:
    if not texts:
        return []
    return [tuple(ids) for ids in tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]]
