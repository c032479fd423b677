"""How a gradient passes through an inner loop: one file an estimator."""

from immunax.inner.estimators.first_order import FirstOrder
from immunax.inner.estimators.implicit import Implicit
from immunax.inner.estimators.reptile import Reptile
from immunax.inner.estimators.unrolled import MixedMode, Truncated, Unrolled

__all__ = ["FirstOrder", "Implicit", "MixedMode", "Reptile", "Truncated", "Unrolled"]
