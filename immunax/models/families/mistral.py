"""Mistral 7B (arXiv:2310.06825), whose first version attends through a sliding window."""

from collections.abc import Mapping

from immunax.models.config import DecoderConfig
from immunax.models.families.family import Family
from immunax.models.families.fields import Fields


def _read(fields: Fields) -> Mapping:
    # Absent means the class's default, which is the first version's; null means none.
    return {"sliding_window": fields.count_or_none("sliding_window", 4096)}


def _write(config: DecoderConfig) -> Mapping:
    return {"sliding_window": config.sliding_window}


MISTRAL = Family("mistral", "MistralForCausalLM", read=_read, write=_write)
