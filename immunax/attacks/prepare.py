"""From dialogs to what an attack runs on."""

from dataclasses import replace
from typing import Any, cast

from immunax.attacks.attack import Attack, AttackData, Edit, FineTuning
from immunax.data.batches import pack, stack
from immunax.data.chat import Counts, Encoded, encode_all
from immunax.data.dialog import Dialog, Splits
from immunax.data.order import Stream
from immunax.data.packing import fit_packed
from immunax.data.prompts import Prompts, stop_tokens
from immunax.models.generate import Decoding


def phases(attack: FineTuning, splits: Splits) -> tuple[tuple[tuple[Dialog, ...], int], ...]:
    """The parts of an attack's course: the dialogs of each, and how many epochs it has.

    Args:
      attack: one with an order of its own has a method ``phases``; any other one shuffles all its dialogs together.
      splits: where the dialogs come from.
    """
    own = getattr(attack, "phases", None)
    return ((attack.dialogs(splits), attack.tuning.epochs),) if own is None else own(splits)


def ordered(attack: FineTuning, tokenizer: Any, splits: Splits) -> tuple[list[list[Encoded]], Counts]:
    """The examples of an attack's K batches, and how many of its dialogs were kept, cut and dropped.

    Args:
      attack, tokenizer, splits: as in :func:`prepare`.
    """
    batches: list[list[Encoded]] = []
    kept = truncated = dropped = 0
    for dialogs, epochs in phases(attack, splits):
        tuning = replace(attack.tuning, epochs=epochs)
        examples, report = encode_all(tokenizer, dialogs, tuning.max_length)
        stream = Stream(examples, min(tuning.batch_size, len(examples)), tuning.seed)
        batches += stream.batches(range(tuning.steps(len(examples))))
        kept, truncated, dropped = kept + report.kept, truncated + report.truncated, dropped + report.dropped
    return batches, Counts(kept, truncated, dropped)


def prepare(
    attack: Attack, tokenizer: Any, splits: Splits, probes: Prompts, decoding: Decoding
) -> tuple[AttackData, Counts]:
    """Encodes, orders and packs an attack's dialogs.

    Args:
      attack: says which dialogs, how long, how many a step, and in which order; or what else it reads.
      tokenizer: the model's.
      splits: where the dialogs come from.
      probes: held-out prompts to answer along the way.
      decoding: how they are answered.

    Returns:
      The data, and how many dialogs were kept, cut and dropped.
    """
    material, report = _material(attack, tokenizer, splits)
    return AttackData(material, probes, stop_tokens(tokenizer), decoding), report


def _material(attack: Attack, tokenizer: Any, splits: Splits) -> tuple[Any, Counts]:
    if isinstance(attack, Edit):
        return attack.material(tokenizer, splits), Counts(0, 0, 0)
    batches, report = ordered(cast(FineTuning, attack), tokenizer, splits)
    layout = fit_packed(batches)
    return stack([pack(batch, layout) for batch in batches]), report
