"""How a model's tokenizer speaks beyond what its files say: the chat template chosen, what that is told, and which ids end an
answer."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from immunax.runtime import digest, mirror
from immunax.runtime.errors import UserError, nearest, shown
from immunax.runtime.untrusted import files, templates

DEFAULT = "default"
"""Of several named templates, the one that is used."""
SHIPPED = {path.stem: path for path in sorted((Path(__file__).parent / "templates").glob("*.jinja"))}
"""Prompt formats of published work, by name, for models without a template of their own or recipes that train on another."""
_RESERVED = ("messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize")


def set_up(
    tokenizer: PreTrainedTokenizerFast,
    chosen: str | None,
    arguments: Mapping[str, Any] | None,
    *configs: Mapping[str, Any],
) -> str:
    """Makes a tokenizer speak as its model is told to.

    Args:
      tokenizer: changed in place.
      chosen: see :func:`choose_template`.
      arguments: see :func:`tell_template`.
      configs: see :func:`stop_at`.

    Returns:
      SHA-256 of what was set: template, arguments and stop ids.

    Raises:
      UserError: one of them does not fit the tokenizer.
    """
    choose_template(tokenizer, chosen)
    told = tell_template(tokenizer, arguments)
    return digest.of_json([template_text(tokenizer), told, list(stop_at(tokenizer, *configs))])


def choose_template(tokenizer: PreTrainedTokenizerFast, chosen: str | None) -> None:
    """Sets the chat template, which exports carry on.

    Args:
      tokenizer: changed in place.
      chosen: a name among the tokenizer's templates or :data:`SHIPPED`, or a file with another one; None keeps its own.

    Raises:
      UserError: there is no such template, or there are several and none was chosen.
    """
    own = tokenizer.chat_template
    named = dict(own) if isinstance(own, Mapping) else {}
    if chosen is None:
        if named and DEFAULT not in named:
            raise UserError(
                f"the tokenizer of {tokenizer.name_or_path!r} has several chat templates ({', '.join(sorted(named))}) and none "
                "of them is the default; choose one with model.chat_template=NAME"
            )
        return
    text = named[chosen] if chosen in named else _read(SHIPPED.get(chosen, chosen), named)
    tokenizer.chat_template = {**named, DEFAULT: text} if named else text


def _read(path: str | Path, named: Mapping[str, str]) -> str:
    try:
        return files.read_text(mirror.brought(path), templates.LONGEST)
    except (UserError, RuntimeError) as error:  # the latter where ~NAME names no user
        known = f"a template of the tokenizer ({', '.join(sorted(named))}), " if named else ""
        raise UserError(
            f"model.chat_template={path}: expected {known}{', '.join(SHIPPED)}, or a readable text file; {error}"
            f"{nearest(str(path), (*named, *SHIPPED))}"
        ) from error


def tell_template(tokenizer: PreTrainedTokenizerFast, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Sets what the chat template is told beside the messages, such as ``enable_thinking``.

    Args:
      tokenizer: gets the attribute ``template_args``, which :mod:`immunax.data.contract` reads; exports do not carry it.
      arguments: by name; none for None.

    Raises:
      UserError: there is no template, it reads no such name, or the name is given by the dialog.
    """
    told = dict(arguments or {})
    template = template_text(tokenizer)
    for name in told:
        if name in _RESERVED:
            raise UserError(f"model.template_args.{name}: is set for every dialog; expected another argument.")
        if not re.search(rf"\b{re.escape(name)}\b", template):
            known = tuple(sorted(set(re.findall(r"\b[a-z_]{4,}\b", template))))
            raise UserError(
                f"model.template_args.{name}: the chat template of {tokenizer.name_or_path!r} reads no such argument."
                f"{nearest(name, known)}"
            )
    tokenizer.template_args = told  # type: ignore[attr-defined]
    return told


def stop_at(tokenizer: PreTrainedTokenizerFast, *configs: Mapping[str, Any]) -> tuple[int, ...]:
    """Sets the ids that end an answer beside the tokenizer's own.

    Args:
      tokenizer: gets the attribute ``stop_ids``, which :mod:`immunax.data.prompts` reads.
      configs: a model's ``config.json`` and ``generation_config.json``, whose ``eos_token_id`` is an id, a list or nothing.

    Raises:
      UserError: one is no id.
    """
    found: set[int] = set()
    for config in configs:
        value = config.get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(map(is_token_id, ids)):
            raise UserError(
                f"model {tokenizer.name_or_path!r}: eos_token_id={shown(value)}; expected a token's id or a list."
            )
        found |= set(ids)
    tokenizer.stop_ids = tuple(sorted(found))  # type: ignore[attr-defined]
    return tokenizer.stop_ids  # type: ignore[attr-defined]


def is_token_id(value: Any) -> bool:
    """Whether a value of a file can be a token's id."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def digests(tokenizer: PreTrainedTokenizerFast) -> dict[str, str | None]:
    """What a model's speech is known by, whatever files it lies in.

    Args:
      tokenizer: with its chat template, set up.

    Returns:
      SHA-256 of ``tokenizer``, its vocabulary and rules with what begins and ends a text, and of ``template``, with what that is
      told; None for a template that is not there.
    """
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    # How the last call was padded is kept there, and changes nothing that is asked of it.
    rules = {name: value for name, value in rules.items() if name not in ("padding", "truncation")}
    ends = [tokenizer.bos_token, tokenizer.eos_token, list(getattr(tokenizer, "stop_ids", ()))]
    if tokenizer.backend_tokenizer.encode_special_tokens:
        ends.append("special tokens are cut as text")
    told = getattr(tokenizer, "template_args", {})
    template = None if tokenizer.chat_template is None else digest.of_json([template_text(tokenizer), told])
    return {"tokenizer": digest.of_json([rules, ends]), "template": template}


def template_text(tokenizer: PreTrainedTokenizerFast) -> str:
    """The chat template that is used, empty where there is none."""
    own = tokenizer.chat_template
    return (own.get(DEFAULT, "") if isinstance(own, Mapping) else own) or ""
