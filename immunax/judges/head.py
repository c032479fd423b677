"""A calibrated linear classifier: logistic regression, then Platt's correction on data that it was not fitted to.

Platt 1999 ("Probabilistic outputs for support vector machines"): P(harmful) = 1 / (1 + exp(-(slope z + offset))) of the
linear score z, fitted by maximum likelihood to targets (n1 + 1) / (n1 + 2) and 1 / (n0 + 2) in place of 1 and 0, so that
classes which a score separates do not make it infinitely sure.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression


class Head(NamedTuple):
    """float32 arrays: ``weight`` ``[F]``; ``bias``, ``slope`` and ``offset`` ``[1]``."""

    weight: np.ndarray
    bias: np.ndarray
    slope: np.ndarray
    offset: np.ndarray


def fit(vectors: Any, labels: np.ndarray, strength: float, others: Any, other_labels: np.ndarray) -> Head:
    """Fits weights, then their calibration.

    Args:
      vectors: ``[N, F]``, dense or sparse.
      labels: ``[N]`` bool, true is harmful; both occur.
      strength: C, the inverse of the L2 penalty.
      others: ``[M, F]`` for the calibration.
      other_labels: ``[M]`` bool; both occur.
    """
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(vectors, labels)
    weight, bias = fitted.coef_[0], fitted.intercept_[0]
    slope, offset = platt(np.asarray(others @ weight).ravel() + bias, other_labels)
    return Head(*(np.atleast_1d(np.asarray(part, np.float32)) for part in (weight, bias, slope, offset)))


def platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make probabilities of scores.

    Args:
      scores: ``[M]``.
      labels: ``[M]`` bool; both occur.
    """
    ones, zeros = labels.sum(), (~labels).sum()
    target = np.where(labels, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    # A target between 0 and 1 is a one and a zero of that weight.
    twice, classes = np.concatenate([scores, scores])[:, None], np.repeat([True, False], len(scores))
    weights = np.concatenate([target, 1 - target])
    fitted = LogisticRegression(C=np.inf, max_iter=2000, tol=1e-8).fit(twice, classes, sample_weight=weights)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def probability(head: Head, vectors: Any) -> np.ndarray:
    """Of harm, ``[N]`` float64.

    Args:
      head: from :func:`fit`.
      vectors: ``[N, F]``, dense or sparse.
    """
    scores = np.asarray(vectors @ head.weight.astype(np.float64)).ravel() + head.bias.item()
    return expit(head.slope.item() * scores + head.offset.item())
