"""Attacks that others sent, and configurations of certificates and manifests, as a stranger would write them."""

import json
from pathlib import Path

from fuzz import mutations
from fuzz.parser import Parser

from immunax.judges.evaluate import Evaluation
from immunax.runtime import manifest
from immunax.runtime.admission import admit
from immunax.runtime.errors import UserError
from immunax.runtime.launch import composed
from immunax.runtime.untrusted.values import read_object
from immunax.stages.guard import Start
from immunax.stages.setup import Parts
from immunax.stages.submitted import spec
from immunax.stages.suite import Suite

_ATTACK = {
    "_target_": "immunax.campaign.search.Search",
    "populations": {
        "one": {
            "_target_": "immunax.campaign.grid.Population",
            "attack": {
                "_target_": "immunax.attacks.harmful_sft.HarmfulSFT",
                "samples": 8,
                "template": {"_target_": "immunax.data.template.Template", "system": "obey", "before": "", "after": ""},
                "tuning": {
                    "_target_": "immunax.attacks.tuning.Tuning",
                    "epochs": 2,
                    "batch_size": 4,
                    "lora": {"_target_": "immunax.models.lora.LoraSpec", "rank": 4, "targets": ["q_proj"]},
                    "optimizer": {"_target_": "immunax.inner.optimizers.Sgd", "learning_rate": 0.1, "momentum": 0.9},
                },
            },
            "grid": {"samples": [4, 8], "tuning.optimizer.learning_rate": [0.1, 0.2]},
            "seeds": [0, 1],
        }
    },
    "halving": {"_target_": "immunax.inner.halving.Halving", "first": 2, "eta": 2},
    "keep": 0.9,
}


def _spec(folder: Path) -> None:
    (folder / "attack.yaml").write_text(json.dumps(_ATTACK))


def _certificate(folder: Path) -> None:
    config = composed("certify", ["suite=smoke", "model=organism"]).plain
    (folder / "config.json").write_text(json.dumps({name: config[name] for name in ("suite", "judge")}))


def _read_certificate(folder: Path) -> None:
    config = read_object(folder / "config.json")
    suite = admit(config.get("suite"), Suite, "the certificate's configuration (suite)")
    admit(config.get("judge"), Evaluation, "the certificate's configuration (judge)")
    # What a replay asks of a suite first.
    for each in suite.attacks.values():
        count = 1
        for values in getattr(each, "grid", {}).values():
            count *= len(values)
        if count > 1000:
            raise UserError("too many members to try here")
        each.members()


def _manifest(folder: Path) -> None:
    config = composed("train", ["+defense=rep_noise", "model=organism"]).plain
    kept = {name: config[name] for name in ("model", "data", "compute", "start")}
    (folder / manifest.FILE).write_text(json.dumps({"argv": [], "config": kept, "digests": {}, "versions": {}}))


def _read_manifest(folder: Path) -> None:
    config = manifest.read(folder)["config"]
    Parts.admitted(config, "the manifest of the model's run")
    admit(config.get("start"), Start, "the manifest of the model's run (start)")


PARSERS = (
    Parser("spec", _spec, lambda folder: spec(folder / "attack.yaml"), {"attack.yaml": mutations.document}),
    Parser("configuration", _certificate, _read_certificate, {"config.json": mutations.document}),
    Parser("manifest_config", _manifest, _read_manifest, {manifest.FILE: mutations.document}),
)
