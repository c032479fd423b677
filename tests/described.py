"""What a node of a configuration describes, for tests that read one YAML file or compose some."""

from typing import Any

from omegaconf import OmegaConf

from immunax.runtime.nodes import built, importable


def described(node: Any) -> Any:
    """The object of a node of OmegaConf's or of plain values."""
    return built(OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node, importable)
