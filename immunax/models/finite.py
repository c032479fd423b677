"""Weights that are numbers, all of them."""

import numpy as np

from immunax.runtime.errors import UserError

_AT_ONCE = 1 << 22
"""Values that are looked through at a time."""


def finite(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """An array, looked through once.

    Args:
      array: of a float dtype, any shape.
      name: the tensor's.
      where: the file's name, for messages.

    Raises:
      UserError: a value is NaN or infinite: every answer of such a model would be noise that looks like a score.
    """
    flat = array.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        if not np.isfinite(flat[start : start + _AT_ONCE]).all():
            raise UserError(f"{where}: tensor {name!r} has values that are NaN or infinite; copy or download it again.")
    return array
