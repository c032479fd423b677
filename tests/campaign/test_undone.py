import math

import numpy as np

from immunax.campaign.undone import clipped, exploded
from immunax.inner.optimizers import AdamW, Sgd
from immunax.inner.state import Trace


def test_clipping_is_counted_where_it_takes_something_from_a_step():
    trace = Trace(np.array([2.0, 1.0, 0.5, np.nan]), np.array([5.0, 1.0, 0.5, 7.0]))
    # The last step was not taken.
    assert clipped(Sgd(0.1, max_grad_norm=1.0), trace) == 2 / 3
    assert clipped(Sgd(0.1, max_grad_norm=0.1), trace) == 1.0
    assert clipped(Sgd(0.1, max_grad_norm=None), trace) == 0.0
    assert clipped(AdamW(0.1, max_grad_norm=0.1), trace) == 0.0
    assert clipped(Sgd(0.1), Trace(np.zeros(0), np.zeros(0))) == 0.0


def test_a_loss_that_ends_above_guessing_and_far_above_its_start_has_exploded():
    guess = math.log(100)
    assert exploded(np.array([1.0, 3.0, guess + 0.1]), 100)
    assert exploded(np.array([1.0, 30.0, np.nan]), 100)
    assert not exploded(np.array([1.0, 30.0, 2.0]), 100)
    assert not exploded(np.array([1.0, 3.0, guess - 0.1]), 100)
    # A defense may put the harmful answers far below chance from the start, and keep them there.
    assert not exploded(np.array([15.0, 15.5, 16.0]), 100)
    assert not exploded(np.array([np.nan]), 100)
