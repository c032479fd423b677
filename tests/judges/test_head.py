import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

from immunax.judges.head import fit, platt, probability

RNG = np.random.default_rng(0)


def sample(n):
    labels = RNG.integers(0, 2, n).astype(bool)
    return RNG.normal(size=(n, 3)) + labels[:, None], labels


def test_platt_is_the_maximum_likelihood_of_smoothed_targets():
    scores, labels = RNG.normal(size=60), RNG.integers(0, 2, 60).astype(bool)
    scores += labels
    target = np.where(labels, (labels.sum() + 1) / (labels.sum() + 2), 1 / ((~labels).sum() + 2))

    def loss(free):
        p = expit(free[0] * scores + free[1])
        return -(target * np.log(p) + (1 - target) * np.log1p(-p)).sum()

    np.testing.assert_allclose(platt(scores, labels), minimize(loss, [1.0, 0.0], tol=1e-12).x, rtol=1e-3, atol=1e-4)


def test_classes_that_a_score_separates_get_no_infinite_slope():
    scores = np.array([-2.0, -1.0, 1.0, 2.0])
    slope, offset = platt(scores, scores > 0)
    assert 0.5 < slope < 10
    assert expit(slope * 2 + offset) == pytest.approx((2 + 1) / (2 + 2), abs=0.1)


def test_weights_are_at_the_minimum_of_the_penalised_loss():
    (x, y), (others, other_labels) = sample(200), sample(50)
    head = fit(x, y, 0.5, others, other_labels)

    def loss(free):
        z = x @ free[:3] + free[3]
        return np.logaddexp(0, np.where(y, -z, z)).sum() + (free[:3] ** 2).sum() / (2 * 0.5)

    want = minimize(loss, np.zeros(4)).x
    np.testing.assert_allclose([*head.weight, *head.bias], want, atol=2e-3)
    np.testing.assert_allclose(
        probability(head, others), expit(head.slope * (others @ head.weight + head.bias) + head.offset), rtol=1e-5
    )


def test_sparse_vectors_give_the_same_as_dense_ones():
    (x, y), (others, other_labels) = sample(80), sample(40)
    dense, sparse = fit(x, y, 1.0, others, other_labels), fit(csr_matrix(x), y, 1.0, csr_matrix(others), other_labels)
    np.testing.assert_allclose(probability(dense, others), probability(sparse, csr_matrix(others)), atol=1e-3)


def test_probabilities_are_calibrated_where_scores_overstate():
    scores, truth = RNG.normal(size=4000) * 10, RNG.random(4000)
    labels = truth < expit(scores / 10)
    slope, offset = platt(scores, labels)
    assert slope == pytest.approx(0.1, rel=0.15)
    assert offset == pytest.approx(0.0, abs=0.15)
