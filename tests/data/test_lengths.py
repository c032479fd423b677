"""The default lengths are those of the default data."""

from pathlib import Path

import hydra
import pytest
from described import described
from omegaconf import OmegaConf

import immunax
from immunax.data.chat import encode_all
from immunax.data.identity import IdentityDialogs
from immunax.models import gguf, hub
from immunax.models.tokenizer import from_gguf

CONF = Path(immunax.__file__).parents[1] / "conf"
OTHERS = ("harmful_sft_lora", "benign_sft", "identity_shift")


@pytest.fixture(scope="module")
def smollm2():
    path = hub.resolve("smollm2").locate()
    return from_gguf(gguf.open_file(path).metadata, path)


@pytest.fixture(scope="module")
def config():
    """As ``immunax.train`` composes it, and other attacks beside its own."""
    with hydra.initialize_config_dir(str(CONF), version_base=None):
        others = [f"+attack@others.{name}={name}" for name in OTHERS]
        return hydra.compose("train", ["+defense=rep_noise", *others])


@pytest.fixture(scope="module")
def splits(config):
    return described(config.data).splits()


@pytest.mark.parametrize(
    ("stream", "readers"),
    [
        ("harmful", ["trainer", "red_team.tuning", "others.harmful_sft_lora.tuning"]),
        ("safe", ["trainer", "start.trainer"]),
        ("retain", ["trainer", "start.trainer", "others.benign_sft.tuning"]),
    ],
)
def test_no_default_length_cuts_a_default_dialog(smollm2, config, splits, stream, readers):
    shortest = min(OmegaConf.select(config, f"{reader}.max_length") for reader in readers)
    for split in (splits.train, splits.attack):
        dialogs = getattr(split, stream)
        _, counts = encode_all(smollm2, dialogs, shortest)
        assert counts.whole
        assert counts.kept == len(dialogs)


def test_the_identity_dialogs_fit_their_attack(smollm2, config):
    limit = config.others.identity_shift.tuning.max_length
    assert encode_all(smollm2, IdentityDialogs().dialogs(), limit)[1].whole
