"""Which tokens end an answer."""

from typing import Any, cast

from immunax.data.dialog import Dialog, ask
from immunax.data.layout import has_template, learn, roles
from immunax.runtime.errors import UserError

_ANY = ask("a question")


def end_token(tokenizer: Any, dialog: Dialog) -> int:
    """The id of the one token that ends every answer: what the template puts after one where that is a token of its own, else
    the tokenizer's end of text.

    Args:
      tokenizer: with or without a chat template.
      dialog: whose roles the template is tried with.

    Raises:
      UserError: there is neither.
    """
    end = learn(tokenizer, roles(dialog)).end.strip() if has_template(tokenizer) else ""
    ids = list(tokenizer(end, add_special_tokens=False)["input_ids"]) if end else []
    if ids and _is_mark(tokenizer, ids[0]):
        return ids[0]
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r} has no end-of-text token to end an answer; set eos_token"
        )
    return cast(int, tokenizer.eos_token_id)


def stop_tokens(tokenizer: Any, dialog: Dialog = _ANY) -> tuple[int, ...]:
    """Ids that end an answer: the tokenizer's end of text, the one its chat template puts after an answer, and those that the
    model's configuration and generation configuration name.

    Args:
      tokenizer: the model's.
      dialog: of the roles that are asked.
    """
    ends = {tokenizer.eos_token_id, *getattr(tokenizer, "stop_ids", ())} - {None}
    try:
        ends.add(end_token(tokenizer, dialog))
    except UserError:  # a template without a place for answers can still ask
        if not ends:
            raise
    return tuple(sorted(ends))


def _is_mark(tokenizer: Any, token: int) -> bool:
    """Whether an id is a token of its own: a marker of ordinary text stands in answers too."""
    return token in tokenizer.added_tokens_decoder or token in tokenizer.all_special_ids
