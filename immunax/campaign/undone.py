"""What an attack may leave undone without a word: steps that clipping held back, and a loss that went up instead of down.

A model that is still harmless after it shows nothing of itself.
"""

import math

import numpy as np

from immunax.inner.optimizers import Optimizer
from immunax.inner.state import Trace


def clipped(optimizer: Optimizer, trace: Trace) -> float:
    """Share of the steps taken that clipping made smaller; 0 where none was taken.

    Args:
      optimizer: that took them.
      trace: of the attack, on the host; what is not finite in it led to no step.
    """
    taken = trace.norm[np.isfinite(trace.loss) & np.isfinite(trace.norm)]
    if optimizer.scale_free or optimizer.max_grad_norm is None or not len(taken):
        return 0.0
    return float(np.mean(taken >= optimizer.max_grad_norm))


def exploded(loss: np.ndarray, vocabulary: int) -> bool:
    """Whether an attack ended far above where it began, and above what guessing would cost.

    Args:
      loss: ``[K]``, before every step, nats per token.
      vocabulary: how many tokens there are to guess from.
    """
    known = loss[np.isfinite(loss)]
    return bool(len(known) and known[-1] > max(2 * known[0], math.log(vocabulary)))
