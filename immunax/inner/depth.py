"""Layers named so that one configuration serves models of any depth."""

from immunax.models.model import Model
from immunax.runtime.errors import UserError


def layer_index(model: Model, layer: int | float, field: str) -> int:
    """The number of a layer.

    Args:
      model: static; of L layers.
      layer: its number from 0, or a fraction of the depth: ``round(fraction · L)``, at most L − 1.
      field: the configuration's name for it, for the message.

    Returns:
      0 to L − 1.

    Raises:
      UserError: the model has no such layer.
    """
    return _resolve(layer, model.config.n_layers, model.config.n_layers - 1, field)


def stream_rows(model: Model, rows: tuple[int | float, ...], field: str) -> tuple[int, ...]:
    """The rows of the residual stream, as :attr:`~immunax.models.model.Outputs.residuals` numbers them.

    Args:
      model: static; of L layers.
      rows: 0 for the embedding, i for what i layers have written, or fractions of the depth.
      field: the configuration's name for them, for the message.

    Returns:
      Distinct rows from 0 to L, rising.

    Raises:
      UserError: there are none, or the model has no such row.
    """
    if not rows:
        raise UserError(f"{field} is empty: give at least one row of the residual stream.")
    depth = model.config.n_layers
    return tuple(sorted({_resolve(row, depth, depth, field) for row in rows}))


def _resolve(place: int | float, depth: int, last: int, field: str) -> int:
    fraction = isinstance(place, float)
    if isinstance(place, bool) or not isinstance(place, int | float) or not 0 <= place <= (1 if fraction else last):
        raise UserError(
            f"{field}={place!r}: the model has {depth} layers; expected a whole number from 0 to {last}, "
            "or a fraction of the depth from 0.0 to 1.0."
        )
    return min(round(place * depth), last) if fraction else place
