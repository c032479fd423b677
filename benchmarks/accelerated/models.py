"""How the cases' models are computed: as the package does it by default on the device at hand."""

from collections.abc import Mapping
from typing import Any

import jax

from accelerated.shapes import SHAPES
from immunax.models.config import DecoderConfig
from immunax.models.kernels import choice
from immunax.models.model import Model, decoding_on


def config_of(name: str) -> DecoderConfig:
    """The decoder of a shape in ``shapes.py``."""
    return DecoderConfig("llama", **SHAPES[name]._asdict())


def model_of(sizes: Mapping[str, Any], platform: str) -> Model:
    """The model of a case, as ``immunax.stages.setup.Compute`` has it, which cannot be read without the packages of its commands.

    Args:
      sizes: its ``shape``, and ``dtype`` where it is not the platform's.
      platform: as :func:`immunax.models.kernels.choice.platform` names it.
    """
    config, dtype = config_of(sizes["shape"]), sizes.get("dtype") or dtype_on(platform)
    remat = "full" if platform == "tpu" else "dots"
    chunk = 256 if platform in ("cpu", "tpu") else 2048
    attention = choice.chosen(choice.AUTO, config, dtype, platform)
    return Model(config, remat, dtype, attention, chunk, decoding_on(platform))


def dtype_on(platform: str) -> str:
    """Of computations on a platform."""
    return "float32" if platform == "cpu" else "bfloat16"


def settle(model: Model, platform: str) -> None:
    """Has products of float32 be of float32, as the package does where that is the dtype of the computation."""
    if model.dtype == "float32" and platform != "cpu":
        jax.config.update("jax_default_matmul_precision", "highest")
