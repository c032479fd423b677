"""What is to be reached on one H100 or H200, every ratio between rows of one run."""

from collections.abc import Callable
from typing import NamedTuple

from accelerated.catalogue import COMPILED, EAGER, IMMUNAX
from accelerated.record import Report, Row

MET, MISSED, UNMEASURED = "met", "not met", "not measured here"
CARDS = ("H100", "H200")
"""Parts of the names of the devices that the goals are for."""


class Goal(NamedTuple):
    """A number that has to be reached.

    Attributes:
      text: what it is of, for the table.
      found: reads it off a report, None where rows are missing.
      bound: the goal.
      at_least: whether more is better.
      shown: how the number is written, for ``format``.
    """

    text: str
    found: Callable[[Report], float | None]
    bound: float
    at_least: bool = True
    shown: str = ".2f"

    def verdict(self, report: Report) -> str:
        """Met, not met, or not measured: rows are missing, sizes are tiny, or the device is another."""
        found = self.found(report)
        if found is None or report.tiny or not any(card in report.device for card in CARDS):
            return UNMEASURED
        return MET if (found >= self.bound if self.at_least else found <= self.bound) else MISSED


def _pair(report: Report, case: str, against: tuple[str, str]) -> tuple[Row, Row] | None:
    ours, theirs = report.row(case, IMMUNAX), report.row(*against)
    return None if ours is None or theirs is None else (ours, theirs)


def faster(case: str, than: str, of: str | None = None) -> Callable[[Report], float | None]:
    """How many times the rate of another side, or of another case ``of``, immunax has."""

    def found(report: Report) -> float | None:
        pair = _pair(report, case, (of or case, than))
        return None if pair is None else pair[0].rate / pair[1].rate

    return found


def memory(case: str, than: str, of: str | None = None) -> Callable[[Report], float | None]:
    """How many times the peak memory of another side, or of another case ``of``, immunax takes."""

    def found(report: Report) -> float | None:
        pair = _pair(report, case, (of or case, than))
        if pair is None or not pair[0].peak_bytes or not pair[1].peak_bytes:
            return None
        return pair[0].peak_bytes / pair[1].peak_bytes

    return found


def share(case: str) -> Callable[[Report], float | None]:
    """The share of the matrix peak that immunax's useful FLOPs have."""

    def found(report: Report) -> float | None:
        row, peak = report.row(case, IMMUNAX), report.peak
        return None if row is None or peak is None or row.flops_per_s is None else row.flops_per_s / peak

    return found


def rate(case: str) -> Callable[[Report], float | None]:
    """Units a second."""

    def found(report: Report) -> float | None:
        row = report.row(case, IMMUNAX)
        return None if row is None else row.rate

    return found


GOALS = (
    Goal("full 8×512: times torch.compile", faster("full_8x512", COMPILED), 1.1),
    Goal("full 8×512: times torch eager", faster("full_8x512", EAGER), 1.35),
    Goal("full 4×2048: times torch eager", faster("full_4x2048", EAGER), 1.5),
    Goal("full 4×2048: of the matrix peak", share("full_4x2048"), 0.6, shown=".0%"),
    Goal("LoRA 8×512: times eager peft", faster("lora_8x512", EAGER), 1.7),
    Goal("LoRA 8×512: memory, times eager peft's", memory("lora_8x512", EAGER), 1.1, at_least=False),
    Goal("packed: useful tokens/s, of dense rows'", faster("packed_8x512", IMMUNAX, "full_8x512"), 0.95, shown=".1%"),
    Goal("decoding: tokens/s", rate("decoding"), 60_000, shown=",.0f"),
    Goal("decoding: times generate", faster("decoding", EAGER), 10.0),
    Goal("LoRA population on 1.1B: of the matrix peak", share("attacks_1.1B"), 0.55, shown=".0%"),
    Goal("K = 1,000: steps/s, of K = 64's", faster("scan_1000", IMMUNAX, "scan_64"), 0.95, shown=".1%"),
    Goal("K = 1,000: memory, times K = 64's", memory("scan_1000", IMMUNAX, "scan_64"), 1.05, at_least=False),
)
