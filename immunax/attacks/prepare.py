"""From dialogs to what an attack runs on."""

from typing import Any, cast

from immunax.attacks.attack import Attack, AttackData, Edit, FineTuning
from immunax.data.batches import pack, stack
from immunax.data.chat import Encoded, Report, encode_all
from immunax.data.dialog import Splits
from immunax.data.order import Stream
from immunax.data.packing import fit_packed
from immunax.data.prompts import Prompts, stop_tokens
from immunax.models.generate import Decoding


def ordered(attack: FineTuning, tokenizer: Any, splits: Splits) -> tuple[list[list[Encoded]], Report]:
    """The examples of an attack's K batches, and how many of its dialogs were kept, cut and dropped.

    Args:
      attack, tokenizer, splits: as in :func:`prepare`.
    """
    tuning = attack.tuning
    examples, report = encode_all(tokenizer, attack.dialogs(splits), tuning.max_length)
    stream = Stream(examples, min(tuning.batch_size, len(examples)), tuning.seed)
    return list(stream.batches(range(tuning.steps(len(examples))))), report


def prepare(
    attack: Attack, tokenizer: Any, splits: Splits, probes: Prompts, decoding: Decoding
) -> tuple[AttackData, Report]:
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


def _material(attack: Attack, tokenizer: Any, splits: Splits) -> tuple[Any, Report]:
    if isinstance(attack, Edit):
        return attack.material(tokenizer, splits), Report(0, 0, 0)
    batches, report = ordered(cast(FineTuning, attack), tokenizer, splits)
    layout = fit_packed(batches)
    return stack([pack(batch, layout) for batch in batches]), report
