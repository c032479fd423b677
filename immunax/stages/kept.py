"""How much of the data is used, and how much of what is computed is data: said aloud, and kept in the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from immunax.campaign.programs import Program
from immunax.data.chat import Counts
from immunax.data.packing import Tokens, total
from immunax.outer.defense import Mixture
from immunax.outer.row_share import largest
from immunax.runtime import console, goodput

ATTACK = "attack"
"""The stream of an attack's own dialogs."""

LOW = 0.5
"""Of tokens, a share of real ones that is told with what would help."""


def record_counts(counts: Mapping[str, Counts], lengths: Mapping[str, str]) -> dict[str, Any]:
    """Says in one line of each stream what was lost.

    Args:
      counts: by stream.
      lengths: by stream, the field that sets how long its dialogs may be, and its value.

    Returns:
      The counts and the share of answer tokens kept, by stream, JSON-able.
    """
    for name, each in counts.items():
        if not each.whole:
            console.note(f"{name}: {each.told(lengths[name])}")
    return {name: {**asdict(each), "share": each.share} for name, each in counts.items()}


def tokens_to_json(tokens: Mapping[str, Tokens]) -> dict[str, Any]:
    """Tokens and shares by stream, and under ``all`` of them together; nothing where there are no streams."""
    found = {**tokens, "all": total(tokens.values())} if tokens else {}
    return {name: {**each._asdict(), "share": round(each.share, 4)} for name, each in found.items()}


def tokens_by_family(folder: Path) -> dict[str, Any]:
    """Of the cells of a certificate that its run has measured itself, by family, as :func:`tokens_to_json`.

    Args:
      folder: of the run.
    """
    return tokens_to_json({name: Tokens(*each) for name, each in goodput.tokens(folder).items()})


def record_tokens(title: str, tokens: Mapping[str, Tokens], help: str) -> dict[str, Any]:
    """Says in one line how many of the tokens that a run computes are of examples, and what would help where few are.

    Args:
      title: of what computes them.
      tokens: by stream, over all of its batches.
      help: what to change.

    Returns:
      As :func:`tokens_to_json`.
    """
    if tokens:
        console.note(real_tokens(title, tokens, help))
    return tokens_to_json(tokens)


def real_tokens(title: str, tokens: Mapping[str, Tokens], help: str) -> str:
    """The line that :func:`record_tokens` says."""
    share = total(tokens.values()).share
    parts = ", ".join(f"{name} {each.share:.1%}" for name, each in tokens.items())
    streams = f" ({parts})" if len(tokens) > 1 else ""
    return f"{title}: {share:.1%} of the tokens computed are real{streams}, the rest is padding" + (
        f"; {help}" if share < LOW else ""
    )


def help_with_rows(mixture: Mixture, ways: int) -> str:
    """What makes a defense's batches fuller.

    Args:
      mixture: examples of a batch.
      ways: that the mesh splits rows over.
    """
    if total(largest(mixture, ways).values()).share < LOW:
        return (
            f"the mesh splits the rows of a batch over {ways} devices, and makes as many of them: raise the examples of "
            f"defense.mixture to {ways}, lower mesh.data or mesh.fsdp, or take a smaller slice"
        )
    return (
        "the longest example sets the length of a row: lower trainer.max_length, or let examples share rows with "
        "defense.mixture.packed=true paired=false, where the defense allows it"
    )


HELP_ATTACKS = (
    "attacks of one program have the shape of the largest, and the longest example sets the length of a row: lower "
    "tuning.max_length, raise tuning.batch_size, or run them apart"
)
"""What makes an attack's batches fuller."""


def record_programs(programs: Sequence[Program]) -> dict[str, Any]:
    """As :func:`record_tokens`, of an attack or a population."""
    return record_tokens(
        "the attack", {ATTACK: total(part.tokens for part in programs)} if programs else {}, HELP_ATTACKS
    )


def count_tokens(title: str, programs: Iterable[Program]) -> None:
    """Adds the tokens of a population to the accounts of the run; said in one line where few of them are real.

    Args:
      title: of the population.
      programs: its members.
    """
    tokens = total(part.tokens for part in programs)
    goodput.count_tokens(title, *tokens)
    if tokens.share < LOW:
        console.note(real_tokens(title, {title: tokens}, HELP_ATTACKS))


def tell_programs(title: str, programs: Iterable[Program]) -> None:
    """Says in one line which attacks of a population lose some of their data, and how much the worst of them does.

    Args:
      title: of the population.
      programs: its members.
    """
    members = [pair for part in programs for pair in zip(part.attacks, part.counts, strict=True)]
    lossy = [(each.share, each.told(f"max_length={attack.max_length}")) for attack, each in members if not each.whole]
    if lossy:
        console.note(f"{title}: {len(lossy)} of {len(members)} attacks lose data; in the worst {min(lossy)[1]}")
