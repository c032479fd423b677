"""Which implementation of attention a model is computed with."""

from collections.abc import Iterator

import jax

from immunax.models.config import DecoderConfig
from immunax.models.kernels.fused import KERNELS
from immunax.runtime.errors import UserError, nearest

AUTO = "auto"
"""The fastest that computes the model on the platform."""

MASKED = ("blocks", "xla")
"""Plain XLA, with a mask: by blocks of queries, each over the keys up to its end, or all scores at once."""

ATTENTION = (*MASKED, *KERNELS)
"""All implementations, by name."""

_SHORTEST = 128
"""Tokens: the kernel for TPUs fills shorter rows up to so many."""


def platform() -> str:
    """Of this process's devices: ``cpu``, ``tpu``, ``gpu`` (NVIDIA's), or another's name, such as ``rocm``."""
    name = jax.default_backend()
    return name if name != "gpu" or "cuda" in jax.devices()[0].client.platform_version else "rocm"


def chosen(name: str, config: DecoderConfig, dtype: str, where: str) -> str:
    """The implementation that a name stands for.

    NVIDIA's GPUs get cuDNN, TPUs splash attention, a CPU blocks; plain XLA stands in where a kernel does not compute the model.
    Measured: ``benchmarks/README.md``.

    Args:
      name: ``auto``, or one of :data:`ATTENTION`.
      config: of the model.
      dtype: of the computation.
      where: the platform, as :func:`platform` has it.

    Raises:
      UserError: there is no such implementation, or it does not compute the model there.
    """
    if name == AUTO:
        fastest = {"cpu": "blocks", "gpu": "cudnn", "tpu": "splash"}.get(where, "xla")
        short = fastest == "splash" and config.max_positions < _SHORTEST
        return "xla" if short or next(_against(fastest, config, dtype, where), None) else fastest
    if name not in ATTENTION:
        known = (AUTO, *ATTENTION)
        raise UserError(f"compute.attention={name!r}: expected one of {', '.join(known)}.{nearest(name, known)}")
    for reason in _against(name, config, dtype, where):
        raise UserError(f"compute.attention={name}: {reason}; use auto.")
    return name


def _against(name: str, config: DecoderConfig, dtype: str, where: str) -> Iterator[str]:
    """Why an implementation does not compute a model."""
    size = config.head_dim
    if name == "splash" and where not in ("tpu", "cpu"):
        yield f"it is for TPUs, and this is a {where}"
    if name == "cudnn":
        if where != "gpu":
            yield f"it is for NVIDIA's GPUs, and this is a {where}"
        if dtype != "bfloat16":
            yield f"it computes in bfloat16, and compute.dtype is {dtype}"
        if config.attention_cap is not None:
            yield "it caps no scores, as this model does"
        if size % 8 or size > 128:
            yield f"heads of {size} are not a multiple of 8 up to 128"
