"""The cases, in the order that they are worth measuring in; each side of one runs in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMMUNAX, EAGER, COMPILED = "immunax", "torch eager", "torch.compile"
ATTENTIONS = {"immunax xla": None, "immunax blocks": None, "immunax cudnn": "gpu", "immunax splash": "tpu"}
"""Implementations of attention, and the platform that each needs, None for any."""

PEAK = "matrix_peak"
"""The case that the others are held against; it always runs first."""


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
      name: on the command line.
      title: in tables.
      kind: which program measures it, see ``measure.py``.
      unit: what :attr:`~accelerated.record.Row.units` counts, ``tokens``, ``attacks``, ``steps`` or ``calls``.
      sides: who runs it, in order.
      sizes: of the case.
      tiny: sizes that stand in their place on a CPU.
      gib: device memory that it needs at least.
      small: sizes that stand in their place where the device has less; none skips the case there.
      late: sides that no goal waits for: they run after all others.
    """

    name: str
    title: str
    kind: str
    unit: str
    sides: tuple[str, ...]
    sizes: Mapping[str, Any]
    tiny: Mapping[str, Any]
    gib: float = 0.0
    small: Mapping[str, Any] = field(default_factory=dict)
    late: tuple[str, ...] = ()

    def sized(self, tiny: bool, memory: float | None = None) -> dict[str, Any] | None:
        """The sizes on a device of so many bytes of memory; None where it does not fit. None bytes are enough for anything."""
        if tiny:
            return {**self.sizes, **self.tiny}
        if memory is None or memory >= self.gib * 2**30:
            return dict(self.sizes)
        return {**self.sizes, **self.small} if self.small else None


_ALL = (IMMUNAX, EAGER, COMPILED)
_TINY = {"shape": "tiny", "rows": 2, "length": 32, "repeats": 2}
_TINY_POPULATION = {"shape": "tiny", "rates": 2, "seeds": 2, "length": 16, "samples": 4, "steps": 3, "repeats": 1}

CASES = (
    Case(
        "full_8x512",
        "1.1B, all weights, 8×512",
        "training",
        "tokens",
        _ALL,
        {"shape": "1.1B", "rows": 8, "length": 512, "lora": 0, "repeats": 10},
        _TINY,
        gib=40,
    ),
    Case(
        "lora_8x512",
        "1.1B, LoRA r=8, 8×512",
        "training",
        "tokens",
        _ALL,
        {"shape": "1.1B", "rows": 8, "length": 512, "lora": 8, "repeats": 10},
        {**_TINY, "lora": 2},
        gib=16,
        late=(COMPILED,),
    ),
    Case(
        "full_4x2048",
        "1.1B, all weights, 4×2048",
        "training",
        "tokens",
        _ALL,
        {"shape": "1.1B", "rows": 4, "length": 2048, "lora": 0, "repeats": 10},
        {**_TINY, "length": 64},
        gib=48,
        late=(COMPILED,),
    ),
    Case(
        "decoding",
        "greedy decoding, 1.1B, 64 prompts of 64 tokens × 64 new tokens",
        "decoding",
        "tokens",
        (IMMUNAX, EAGER),
        {"shape": "1.1B", "prompts": 64, "length": 64, "new": 64, "repeats": 5},
        {"shape": "tiny", "prompts": 4, "length": 8, "new": 8, "repeats": 2},
        gib=12,
    ),
    Case(
        "packed_8x512",
        "1.1B, all weights, real lengths packed in 8×512",
        "packed",
        "tokens",
        (IMMUNAX,),
        {"shape": "1.1B", "rows": 8, "length": 512, "lora": 0, "repeats": 10},
        {**_TINY, "rows": 4, "length": 128},
        gib=40,
    ),
    Case(
        "attacks_1.1B",
        "population, LoRA × 8 on 1.1B",
        "population",
        "attacks",
        (IMMUNAX, EAGER),
        {"shape": "1.1B", "lora": 8, "rates": 4, "seeds": 2, "samples": 10, "length": 64, "steps": 10, "repeats": 3}
        | {"alone": 2},
        {**_TINY_POPULATION, "lora": 2, "alone": 1},
        gib=40,
    ),
    Case(
        "attention",
        "attention alone, 8×2048×32(8)×64, forward and backward",
        "attention",
        "calls",
        (*ATTENTIONS, EAGER),
        {"rows": 8, "length": 2048, "heads": 32, "kv_heads": 8, "head_dim": 64, "calls": 10, "repeats": 5},
        {"rows": 2, "length": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "calls": 2, "repeats": 2},
        gib=12,
    ),
    Case(
        "lora_8b_4x512",
        "8B, LoRA r=8, 4×512",
        "training",
        "tokens",
        _ALL,
        {"shape": "8B", "rows": 4, "length": 512, "lora": 8, "repeats": 10},
        {**_TINY, "lora": 2},
        gib=48,
        late=(COMPILED,),
    ),
    Case(
        "attacks_organism",
        "population, all weights × 64 on the organism",
        "population",
        "attacks",
        (IMMUNAX, EAGER),
        {"shape": "organism", "lora": 0, "rates": 8, "seeds": 8, "samples": 10, "length": 40, "steps": 10, "repeats": 5}
        | {"alone": 4, "dtype": "float32"},
        {**_TINY_POPULATION, "alone": 1},
        gib=4,
    ),
    Case(
        "attacks_135M",
        "population, LoRA × 8 on 135M",
        "population",
        "attacks",
        (IMMUNAX, EAGER),
        {"shape": "135M", "lora": 8, "rates": 4, "seeds": 2, "samples": 10, "length": 64, "steps": 10, "repeats": 3}
        | {"alone": 2},
        {**_TINY_POPULATION, "lora": 2, "alone": 1},
        gib=12,
    ),
    Case(
        "rep_noise",
        "outer steps of rep_noise, 8 pairs and 8 harmless × 256",
        "defense",
        "steps",
        (IMMUNAX,),
        {"shape": "1.1B", "defense": "rep_noise", "examples": 8, "length": 256, "repeats": 5},
        {"shape": "tiny", "examples": 2, "length": 16, "repeats": 2},
        gib=80,
        small={"shape": "135M"},
    ),
    Case(
        "tar",
        "outer steps of tar, K = 16 × 4×256, 4 checks, 8 harmless",
        "defense",
        "steps",
        (IMMUNAX,),
        {"shape": "1.1B", "defense": "tar", "examples": 8, "length": 256, "repeats": 3}
        | {"inner": 16, "batch": 4, "checks": 4},
        {"shape": "tiny", "examples": 2, "length": 16, "repeats": 1, "inner": 2, "batch": 2, "checks": 1},
        gib=100,
        small={"shape": "135M"},
    ),
    Case(
        "mlac",
        "outer steps of mlac, K = 16 × 4×128, the exact gradient, 4 safe and 4 harmless",
        "defense",
        "steps",
        (IMMUNAX,),
        {"shape": "135M", "defense": "mlac", "examples": 4, "length": 128, "repeats": 3}
        | {"inner": 16, "batch": 4, "checks": 1},
        {"shape": "tiny", "examples": 2, "length": 16, "repeats": 1, "inner": 2, "batch": 2},
        gib=24,
    ),
    Case(
        "scan_64",
        "one scan of 64 attack steps, 135M, all weights, 8×256",
        "scan",
        "steps",
        (IMMUNAX,),
        {"shape": "135M", "rows": 8, "length": 256, "lora": 0, "steps": 64, "repeats": 3},
        {**_TINY, "steps": 4, "repeats": 1},
        gib=12,
    ),
    Case(
        "scan_1000",
        "one scan of 1,000 attack steps, 135M, all weights, 8×256",
        "scan",
        "steps",
        (IMMUNAX,),
        {"shape": "135M", "rows": 8, "length": 256, "lora": 0, "steps": 1000, "repeats": 1},
        {**_TINY, "steps": 32, "repeats": 1},
        gib=12,
    ),
)


def named(name: str) -> Case:
    """The case of a name; a ``KeyError`` where there is none."""
    return {case.name: case for case in CASES}[name]


def measured(cases: tuple[Case, ...]) -> list[tuple[str, str]]:
    """The peak, and each case with each of its sides: first all that goals wait for, case by case, then the late ones."""
    pairs = [
        (case, side) for late in (False, True) for case in cases for side in case.sides if (side in case.late) == late
    ]
    return [(PEAK, IMMUNAX), *((case.name, side) for case, side in pairs)]


def viewed(cases: tuple[Case, ...], platform: str) -> list[tuple[str, str]]:
    """Each case with those of immunax's sides that a platform has."""
    ours = [(case, side) for case in cases for side in case.sides if side.startswith(IMMUNAX)]
    return [(case.name, side) for case, side in ours if ATTENTIONS.get(side) in (None, platform)]
