"""Weights that are needed now and then, and need not fill an accelerator's memory meanwhile."""

from typing import Any

import jax

from immunax.runtime.together import processes


class Parked:
    """Weights on their devices, or in the host's memory with the way back.

    Args:
      weights: a pytree of arrays; whoever wants the room that they take keeps no other reference.
    """

    def __init__(self, weights: Any) -> None:
        self._weights, self._shardings = weights, None

    def here(self) -> Any:
        """The weights, on the devices that they came on."""
        if self._shardings is not None:
            self._weights, self._shardings = jax.device_put(self._weights, self._shardings), None
        return self._weights

    def there(self) -> Any:
        """The weights wherever they are, for what reads them leaf by leaf, such as a disk."""
        return self._weights

    def park(self) -> None:
        """Leaves an accelerator's memory to others; a CPU has no other, and of several processes none holds them whole."""
        if self._shardings is None and _may_park():
            self._shardings = jax.tree.map(lambda leaf: leaf.sharding, self._weights)
            self._weights = jax.device_get(self._weights)


def _may_park() -> bool:
    return processes() == 1 and jax.default_backend() != "cpu"
