"""How the cases' models are computed: as the package does it by default on the device at hand."""

from collections.abc import Mapping
from typing import Any

import jax

from accelerated.shapes import SHAPES
from immunax.models.config import DecoderConfig
from immunax.models.model import Model


def config_of(name: str) -> DecoderConfig:
    """The decoder of a shape in ``shapes.py``."""
    return DecoderConfig("llama", **SHAPES[name]._asdict())


def model_of(sizes: Mapping[str, Any], platform: str) -> Model:
    """The model of a case.

    Args:
      sizes: its ``shape``, and ``dtype`` and ``remat`` where they are not the platform's.
      platform: as ``jax.default_backend()`` names it.
    """
    automatic = "float32" if platform == "cpu" else "bfloat16"
    dtype = sizes.get("dtype", automatic)
    return Model(config_of(sizes["shape"]), sizes.get("remat", "dots"), dtype)


def settle(model: Model, platform: str) -> None:
    """Has products of float32 be of float32, as the package does where the computation is (``Compute.settle``)."""
    if model.dtype == "float32" and platform != "cpu":
        jax.config.update("jax_default_matmul_precision", "highest")
