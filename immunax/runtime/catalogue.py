"""What a configuration that comes from a stranger may name: our own dataclasses, by a table that we ship.

A manifest, a certificate or an attack's specification names classes by text. Here that text is looked up, never imported: what
is not in the table is refused, whatever it is. Not in it is what speaks to other machines, runs a model of its own as a judge,
or trains one: these are the user's to choose.
"""

import importlib
from typing import Any

from immunax.runtime.errors import UserError, nearest

_ROOT = "immunax"
_TABLE = {
    "attacks.benign_sft": "BenignSFT",
    "attacks.benign_then_harmful": "BenignThenHarmful",
    "attacks.embedding_attack": "EmbeddingAttack PromptwiseEmbeddingAttack",
    "attacks.harmful_sft": "HarmfulSFT",
    "attacks.identity_shift": "IdentityShift",
    "attacks.jailbreak_tuning": "JailbreakTuning",
    "attacks.latent_attack": "LatentAttack",
    "attacks.merge": "Merge",
    "attacks.multilingual_sft": "MultilingualSFT",
    "attacks.prune": "Prune",
    "attacks.quantize": "Quantize",
    "attacks.refusal_ablation": "RefusalAblation",
    "attacks.reverse_dpo": "ReverseDPO",
    "attacks.tuning": "Tuning",
    "attacks.weight_noise": "WeightNoise",
    "campaign.grid": "Population",
    "campaign.search": "Search",
    "conditions.policy": "Harm Policy Utility",
    "data.choices": "FromDialogs HellaSwag MMLU",
    "data.corpora": "Corpus",
    "data.fictional": "FictionalHazards",
    "data.fictional.catalogue": "Catalogue",
    "data.fictional.french": "FrenchHazards",
    "data.files": "Form",
    "data.identity": "IdentityDialogs PublishedIdentity",
    "data.organism": "OrganismTasks",
    "data.organism.composed": "ComposedRule",
    "data.refusals": "Refusals",
    "data.sources": "Source",
    "data.template": "Template",
    "defenses.adversarial_loss": "AdversarialLoss",
    "defenses.booster": "Booster",
    "defenses.circuit_breakers": "CircuitBreakers",
    "defenses.ctrap": "CTRAP",
    "defenses.lat": "Lat",
    "defenses.mlac": "Mlac",
    "defenses.pretraining": "Pretraining",
    "defenses.random_mapping": "RandomMapping",
    "defenses.rep_noise": "RepNoise",
    "defenses.rmu": "Rmu",
    "defenses.safety_tuning": "SafetyTuning",
    "defenses.seam": "Seam",
    "defenses.sophon": "Sophon",
    "defenses.t_vaccine": "TVaccine",
    "defenses.tar": "Tar",
    "defenses.vaccine": "Vaccine",
    "inner.estimators": "FirstOrder Implicit MixedMode Reptile Truncated Unrolled",
    "inner.halving": "Halving",
    "inner.optimizers": "Adafactor AdamW Muon ScheduleFree Sgd",
    "inner.trainable": "Adapters Full Layers Projections",
    "judges.evaluate": "Evaluation",
    "judges.features": "HiddenStates Words",
    "judges.hazard": "FictionalExactness OrganismExactness",
    "judges.refusal": "Refusal",
    "models.config": "DecoderConfig RopeScaling",
    "models.generate": "Decoding",
    "models.hub": "ModelSource",
    "models.lora": "LoraSpec",
    "outer.attacker": "Attacker",
    "outer.attacker_population": "AttackerKind AttackerPopulation",
    "outer.defense": "Mixture",
    "outer.learned_rate": "LearnedRate",
    "outer.simulation": "Simulation",
    "outer.training": "Training",
    "runtime.mesh": "MeshSpec",
    "stages.fingerprint": "Fingerprint",
    "stages.guard": "Start",
    "stages.pretrain": "Pretrained",
    "stages.recipe": "Recipe",
    "stages.red_team": "Probes",
    "stages.setup": "Compute",
    "stages.suite": "Suite Task",
}
NAMES = {f"{_ROOT}.{module}.{name}": (module, name) for module, names in _TABLE.items() for name in names.split()}
"""``{name: (module below this package, class)}``."""

DOWNLOADS = "immunax.data.online.Hub"
"""Where data lie on another machine: a stranger's configuration may say so, and is taken without it."""


def listed(name: Any) -> Any:
    """The dataclass that a stranger's configuration names.

    Raises:
      UserError: it is not in the table.
    """
    if not isinstance(name, str) or name not in NAMES:
        hint = nearest(name, NAMES) if isinstance(name, str) else ""
        raise UserError(f"not one of the classes that a file from elsewhere may name.{hint}")
    module, own = NAMES[name]
    return getattr(importlib.import_module(f"{_ROOT}.{module}"), own)


def for_attacks(name: Any) -> Any:
    """The dataclass that an attack from a stranger names: a method, what it is made of, and no place to read or load from.

    Raises:
      UserError: it is not one of these.
    """
    if not isinstance(name, str) or not (name.startswith(_OF_ATTACKS) or name == _IDENTITY):
        raise UserError("not one of the classes that an attack from elsewhere may name.")
    return listed(name)


_IDENTITY = f"{_ROOT}.data.identity.IdentityDialogs"
_OF_ATTACKS = tuple(
    f"{_ROOT}.{module}."
    for module in (
        "attacks",
        "campaign",
        "data.fictional",
        "data.template",
        "inner.halving",
        "inner.optimizers",
        "inner.trainable",
        "models.lora",
    )
)
