from pathlib import Path

import pytest
from omegaconf import OmegaConf

from immunax.certificate.trust import check_config
from immunax.runtime.errors import UserError
from immunax.runtime.launch import configuration_folder
from immunax.runtime.overrides import ConfigSource, prepare


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "builtins.open", "file": "x"},
        {"_target_": "immunax.runtime.cache.os.system", "command": "true"},
        {"_target_": "immunax.runtime.atomic.directory", "path": "x"},
        {"_target_": "immunax.data.online.Hub", "id": "x"},
        {"_target_": "immunax.attacks.prune.Prune", "_args_": [0.5]},
        {"_target_": ["immunax.attacks.prune.Prune"]},
        {"path": "${oc.env:HOME}"},
        {"_partial_": True},
    ],
)
def test_what_is_not_one_of_our_dataclasses_is_never_built(node):
    for config in (node, {"data": [{"deep": node}]}):
        with pytest.raises(UserError, match="do not replay it"):
            check_config(config)


@pytest.mark.parametrize("suite", ["smoke", "standard", "full"])
def test_every_suite_that_comes_with_the_package_may_be_replayed(suite):
    source = ConfigSource(configuration_folder(), "certify", None, {"model": ("hf", "path")})
    prepared = prepare(source, [f"suite={suite}", "run=x"], ())
    config = OmegaConf.to_container(OmegaConf.masked_copy(prepared.config, ["suite", "judge", "policy"]), resolve=False)
    resolved = OmegaConf.to_container(prepared.config.suite, resolve=False)
    check_config(_without_interpolations(config))
    assert resolved["name"] == suite
    assert Path(configuration_folder()).is_dir()


def _without_interpolations(node):
    if isinstance(node, dict):
        return {name: _without_interpolations(child) for name, child in node.items()}
    if isinstance(node, list):
        return [_without_interpolations(child) for child in node]
    return 0 if isinstance(node, str) and "${" in node else node
