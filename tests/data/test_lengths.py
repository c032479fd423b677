"""The default lengths are those of the default data."""

from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

import immunax
from immunax.data.chat import encode_all
from immunax.data.identity import IdentityDialogs
from immunax.models import gguf, hub
from immunax.models.tokenizer import from_gguf

CONF = Path(immunax.__file__).parents[1] / "conf"


@pytest.fixture(scope="module")
def smollm2():
    path = hub.resolve("smollm2").locate()
    return from_gguf(gguf.open_file(path).metadata, path)


def length(path, *names):
    node = OmegaConf.load(CONF / path)
    for name in names:
        node = node[name]
    return node


@pytest.fixture(scope="module")
def train():
    config = OmegaConf.create({"seed": 0, "data": OmegaConf.load(CONF / "data" / "fictional.yaml")})
    return hydra.utils.instantiate(config.data, _convert_="all").splits().train


@pytest.mark.parametrize(
    ("stream", "lengths"),
    [
        ("harmful", [("trainer/default.yaml",), ("tuning/default.yaml",), ("attack/harmful_sft.yaml", "tuning")]),
        ("safe", [("trainer/default.yaml",), ("start/guarded.yaml", "trainer"), ("tuning/default.yaml",)]),
        (
            "retain",
            [("trainer/default.yaml",), ("start/guarded.yaml", "trainer"), ("attack/benign_sft.yaml", "tuning")],
        ),
    ],
)
def test_no_default_length_cuts_a_default_dialog(smollm2, train, stream, lengths):
    shortest = min(length(path, *names, "max_length") for path, *names in lengths)
    _, counts = encode_all(smollm2, getattr(train, stream), shortest)
    assert counts.whole
    assert counts.kept == 840


def test_the_identity_dialogs_fit_their_attack(smollm2):
    limit = length("attack/identity_shift.yaml", "tuning", "max_length")
    assert encode_all(smollm2, IdentityDialogs().dialogs(), limit)[1].whole
