"""Dialogs as tokens: which tokens are the prompt, and which the answer that a loss looks at.

:mod:`immunax.data.contract` says where a chat template puts the answer; here it becomes the answer's tokens and one end token. A
tokenizer without a template gets ``question\\nanswer<eos>``. A dialog without any prompt is plain text: its first token is the
prompt, so that each other token is predicted.

Lengths count a dialog's own text, as a tokenizer without a template would have it; what a template adds comes on top. So a
template decides neither which dialogs are kept nor how much of their answers is. What is longer than the model's context with it
is told where the model is known (:mod:`immunax.inner.context`). Ids that do not spell the text they were made of are refused.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

from immunax.data.contract import asked, written
from immunax.data.dialog import Dialog
from immunax.data.ends import check_ended_once, end_token
from immunax.data.layout import has_template
from immunax.data.spelling import speller
from immunax.runtime import pace
from immunax.runtime.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
_BLOCK = 512
"""Texts that a tokenizer is given at once."""
UNBOUNDED = sys.maxsize
"""A length that cuts nothing."""


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
      answer_tokens: that the answers of all of them had, as plain text.
      answer_tokens_kept: that are left of them; the same under every template.
    """

    kept: int
    truncated: int
    dropped: int
    answer_tokens: int = 0
    answer_tokens_kept: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Of both streams together."""
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def whole(self) -> bool:
        """Whether nothing was lost."""
        return not (self.truncated or self.dropped)

    @property
    def share(self) -> float:
        """Of the answers' tokens that the examples kept; 1 where there were none."""
        return self.answer_tokens_kept / self.answer_tokens if self.answer_tokens else 1.0

    def told(self, length: str) -> str:
        """What was lost, in one line.

        Args:
          length: the field that sets the maximum length, and its value.
        """
        return (
            f"{self.kept} of {self.kept + self.dropped} dialogs are used, {self.truncated} of them cut to {length} and "
            f"{self.dropped} left out; {self.share:.0%} of the answers' tokens are kept"
        )


def encode_all(
    tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog], max_length: int
) -> tuple[list[Encoded], Counts]:
    """Dialogs as tokens, in order, without those that have no answer or no room for one.

    Args:
      tokenizer: a Hugging Face tokenizer.
      dialogs: prompts with answers.
      max_length: the most tokens of prompt and answer together, without what a template adds; answers are cut there.

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
      max_length: the most tokens of prompt and answer together, without what a template adds; answers are cut there.

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
      max_length: the most tokens of a prompt, without what a template adds.

    Returns:
      Token ids, one tuple a prompt; nothing is cut.

    Raises:
      UserError: a prompt is empty or too long, or the tokenizer's template cannot render it.
    """
    for index, dialog in enumerate(dialogs):
        if not dialog.prompt:
            raise UserError(f"prompt {index} is empty; generation needs a corpus of prompts, not of plain text")
    own = _ids(tokenizer, [_plain_prompt(dialog) for dialog in dialogs], special=True)
    for index, ids in enumerate(own):
        if len(ids) > max_length:
            raise UserError(
                f"prompt {index} has {len(ids)} tokens, more than the {max_length} that there is room for; "
                "raise judge.max_length or leave such prompts out"
            )
    return _ids(tokenizer, asked(tokenizer, dialogs), special=False) if has_template(tokenizer) else own


class _Piece(NamedTuple):
    """A dialog's ids, uncut: no answer where the dialog has none.

    Attributes:
      prompt, answer: as the template has them.
      own: tokens of either as plain text.
    """

    prompt: Ids
    answer: Ids
    own: tuple[int, int]

    def lost(self, max_length: int) -> int:
        """Tokens of the answer, the last ones, that have no room; all of them where the prompt has none."""
        return min(max(0, sum(self.own) - max_length), self.own[1])


def _encode_streams(
    tokenizer: "PreTrainedTokenizerBase", streams: Sequence[Sequence[Dialog]], max_length: int
) -> tuple[list[list[Encoded]], list[Counts]]:
    """Streams as examples, keeping only the places where every stream has one."""
    whole = list(zip(*(_split(tokenizer, dialogs) for dialogs in streams), strict=True))
    cut = [(place, [_cut(piece, max_length) for piece in pieces]) for place, pieces in enumerate(whole)]
    kept = [(place, [each for each in examples if each is not None]) for place, examples in cut if None not in examples]
    if not kept:
        raise _nothing([piece for pieces in whole for piece in pieces], max_length)
    places = {place for place, _ in kept}
    found = [[examples[side] for _, examples in kept] for side in range(len(streams))]
    return found, [_counted([pieces[side] for pieces in whole], places, max_length) for side in range(len(streams))]


def _counted(pieces: Sequence[_Piece], places: Collection[int], max_length: int) -> Counts:
    """What became of one stream, of which the pieces at these places were kept."""
    kept = [piece for place, piece in enumerate(pieces) if place in places]
    lost = [piece.lost(max_length) for piece in kept]
    offered, left = sum(piece.own[1] for piece in pieces), sum(piece.own[1] for piece in kept) - sum(lost)
    return Counts(len(kept), sum(map(bool, lost)), len(pieces) - len(kept), offered, left)


def _nothing(pieces: list[_Piece], max_length: int) -> UserError:
    if not pieces:
        return UserError("no dialogs to encode; the corpus has none in this stream and split")
    if not any(piece.answer for piece in pieces):
        return UserError(f"none of {len(pieces)} dialogs has an answer; train on a stream with answers")
    longest = max(piece.own[0] for piece in pieces)
    return UserError(
        f"no dialog fits max_length={max_length}: the longest prompt has {longest} tokens; "
        f"set max_length above {longest}"
    )


def _cut(piece: _Piece, max_length: int) -> Encoded | None:
    lost = piece.lost(max_length)
    answer = piece.answer[: max(0, len(piece.answer) - lost)]
    return Encoded(piece.prompt, answer) if piece.prompt and answer and lost < piece.own[1] else None


def _split(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog]) -> list[_Piece]:
    """Each dialog's ids."""
    talks = iter(_split_talks(tokenizer, [dialog for dialog in dialogs if dialog.prompt]))
    texts = iter(_ids(tokenizer, [dialog.answer for dialog in dialogs if not dialog.prompt], special=True))
    return [next(talks) if dialog.prompt else _plain_text(next(texts)) for dialog in dialogs]


def _plain_text(ids: Ids) -> _Piece:
    return _Piece(ids[:1], ids[1:], (len(ids[:1]), len(ids[1:])))


def _split_talks(tokenizer: "PreTrainedTokenizerBase", dialogs: Sequence[Dialog]) -> list[_Piece]:
    if not any(dialog.answer.strip() for dialog in dialogs):
        return [_Piece(ids, (), (len(ids), 0)) for ids in encode_prompts(tokenizer, dialogs, UNBOUNDED)]
    answered = next(dialog for dialog in dialogs if dialog.answer.strip())
    end = end_token(tokenizer, answered)
    prompts, answers = [_plain_prompt(each) for each in dialogs], [each.answer for each in dialogs]
    own = pieces = continued(tokenizer, prompts, answers, special=True)
    if has_template(tokenizer):
        texts = written(tokenizer, dialogs)
        pieces = continued(tokenizer, [text.prompt for text in texts], [text.answer for text in texts], special=False)
    check_ended_once(tokenizer, [answer for _, answer in pieces], answered)
    ends = [(end,) if answer.strip() else () for answer in answers]
    return [
        _Piece(prompt, (*answer, *last) if last else (), (len(mine), len(text) + 1 if last else 0))
        for last, (prompt, answer), (mine, text) in zip(ends, pieces, own, strict=True)
    ]


def continued(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], answers: Sequence[str], special: bool
) -> list[tuple[Ids, Ids]]:
    """The ids of texts, and of those that go on with them.

    Where a token straddles the border, generation still starts from the prompt's own tokens: so does everything else, and the
    answer's tokens are those of its text alone.

    Args:
      tokenizer: the model's.
      prompts, answers: N each.
      special: whether texts begin with the token that the tokenizer begins every text with.
    """
    heads = _ids(tokenizer, prompts, special)
    wholes = _ids(tokenizer, [head + tail for head, tail in zip(prompts, answers, strict=True)], special)
    pairs = list(zip(heads, wholes, strict=True))
    alone = [answer for (head, whole), answer in zip(pairs, answers, strict=True) if whole[: len(head)] != head]
    own = iter(_ids(tokenizer, alone, special=False))
    return [(head, whole[len(head) :] if whole[: len(head)] == head else next(own)) for head, whole in pairs]


def _plain_prompt(dialog: Dialog) -> str:
    return "".join(f"{message.content}\n" for message in dialog.prompt)


def _ids(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], special: bool) -> list[Ids]:
    """Texts as ids that spell them.

    Raises:
      UserError: the tokenizer makes other texts of them.
    """
    if not texts:
        return []
    # What a tokenizer says beside of a text takes ten times as much as its ids, and each id is a number of its own.
    shared: dict[int, int] = {}
    found: list[Ids] = []
    for start in range(0, len(texts), _BLOCK):
        pace.move()
        block = list(texts[start : start + _BLOCK])
        made = tokenizer(block, add_special_tokens=False, verbose=False, return_attention_mask=False)
        found += [tuple(map(shared.setdefault, ids, ids)) for ids in made["input_ids"]]
    speller(tokenizer).check(texts, found)
    return [(*_begun(tokenizer), *ids) for ids in found] if special else found


def _begun(tokenizer: "PreTrainedTokenizerBase") -> Ids:
    """What every text begins with: the tokenizer's beginning of text, or nothing. What else its file would put around texts, it
    may not."""
    around = tokenizer("")["input_ids"][:1]
    return tuple(around) if around == [tokenizer.bos_token_id] else ()
