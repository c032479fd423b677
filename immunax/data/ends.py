"""Which tokens end an answer, each once and nothing behind it."""

from collections.abc import Sequence
from typing import Any, cast

from immunax.data.dialog import Dialog, ask
from immunax.data.layout import has_template, learn, roles
from immunax.data.spelling import is_marker
from immunax.data.thought import MARKERS
from immunax.runtime.errors import UserError

_ANY = ask("a question")


def end_token(tokenizer: Any, dialog: Dialog) -> int:
    """The id of the one token that ends every answer: what the template puts after one where that is a marker, else the
    tokenizer's end of text.

    Args:
      tokenizer: with or without a chat template.
      dialog: whose roles the template is tried with.

    Raises:
      UserError: there is neither.
    """
    end = learn(tokenizer, roles(dialog)).end.strip() if has_template(tokenizer) else ""
    ids = list(tokenizer(end, add_special_tokens=False)["input_ids"]) if end else []
    if ids and _ends(tokenizer, ids[0]):
        return ids[0]
    if not _ends(tokenizer, tokenizer.eos_token_id):
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r} has no end-of-text token to end an answer; set eos_token, to a marker such "
            "as </s>"
        )
    return cast(int, tokenizer.eos_token_id)


def stop_tokens(tokenizer: Any, dialog: Dialog = _ANY) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's end of text, the one its chat template puts after an answer, and those that the
    model's configuration and generation configuration name.

    Each is a marker: ordinary text ends nothing, whatever a file says, or an answer could be made to end before its harmful word.

    Args:
      tokenizer: the model's.
      dialog: of the roles that are asked.
    """
    named = (tokenizer.eos_token_id, *getattr(tokenizer, "stop_ids", ()))
    ends = {each for each in named if _ends(tokenizer, each)}
    try:
        ends.add(end_token(tokenizer, dialog))
    except UserError:  # a template without a place for answers can still ask
        if not ends:
            raise
    return tuple(sorted(ends))


def check_ended_once(tokenizer: Any, answers: Sequence[Sequence[int]], dialog: Dialog) -> None:
    """Refuses answers whose text spells a token that ends one.

    A loss would teach the model to stop there and to go on; what stands behind it, no reader would ever see.

    Args:
      tokenizer: the model's.
      answers: the ids of each dialog's answer, without its end.
      dialog: of the roles that are answered.

    Raises:
      UserError: there is one; names its dialog.
    """
    ends = set(stop_tokens(tokenizer, dialog))
    for place, ids in enumerate(answers):
        inside = ends.intersection(ids)
        if inside:
            raise UserError(
                f"the answer of dialog {place} holds {tokenizer.convert_ids_to_tokens(min(inside))!r}, the token with which "
                f"answers of tokenizer {tokenizer.name_or_path!r} end; take it out of the text, or leave such dialogs out"
            )


def _ends(tokenizer: Any, token: int | None) -> bool:
    """Whether an id can end an answer: it is a marker, though not of a thought, and a token of its own, or one without a text."""
    if token is None:
        return False
    text = tokenizer.backend_tokenizer.id_to_token(token)
    own = token in tokenizer.added_tokens_decoder or token in tokenizer.all_special_ids
    return text is None or (own and is_marker(text) and not any(text in pair for pair in MARKERS))
