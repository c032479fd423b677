"""Which part of a model's weights an inner loop moves."""

from typing import Any

from immunax.models.lora import Adapted
from immunax.models.model import Params


def trained(params: Params) -> Any:
    """The part that is trained: the adapters of adapted weights, all of plain ones."""
    return params.lora if isinstance(params, Adapted) else params


def with_trained(params: Params, part: Any) -> Params:
    """``params`` with its trained part replaced; what is held keeps its gradient."""
    return params._replace(lora=part) if isinstance(params, Adapted) else part
