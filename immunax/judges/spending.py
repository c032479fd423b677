"""A cap on what may be spent, kept by several threads at once."""

from dataclasses import dataclass, field
from threading import Lock

from immunax.runtime.errors import UserError


@dataclass
class SpendingLimit:
    """Money set aside before it is spent, so that the cap is never passed.

    Attributes:
      cap: the most that may be spent, all runs together.
      spent: so far, what is set aside included.
    """

    cap: float
    spent: float
    _lock: Lock = field(default_factory=Lock, repr=False)

    def reserve(self, most: float) -> None:
        """Sets aside what a request may cost at most.

        Raises:
          UserError: the cap leaves too little; nothing is set aside.
        """
        with self._lock:
            if self.spent + most > self.cap:
                raise UserError(
                    f"cost_cap={self.cap:g} reached: {self.spent:.4g} is spent or under way, and the next request may "
                    f"cost {most:.2g}; what was paid for is kept. Raise cost_cap to go on."
                )
            self.spent += most

    def settle(self, most: float, cost: float) -> None:
        """Puts back what a request did not cost.

        Args:
          most: what was set aside for it.
          cost: of it.
        """
        with self._lock:
            self.spent += cost - most
