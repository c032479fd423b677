from dataclasses import dataclass
from pathlib import Path

import pytest

from immunax.data.organism import OrganismTasks
from immunax.defenses.pretraining import Pretraining
from immunax.judges.evaluate import Evaluation
from immunax.judges.refusal import Refusal
from immunax.models.config import DecoderConfig
from immunax.outer.training import Training
from immunax.runtime import code
from immunax.stages.guard import start_model
from immunax.stages.measure import measure
from immunax.stages.pretrain import Pretrained
from immunax.stages.under_attack import red_team

FILES = {
    "__init__.py": "",
    "loss.py": "import math\nfrom fake.lower import sums, words\n",
    "lower/__init__.py": "from fake.lower.given import given\n",
    "lower/sums.py": "def late():\n    import fake.late\n",
    "lower/words.py": "from . import near\nfrom ..far import Far as F\n",
    "lower/near.py": "",
    "lower/given.py": "",
    "lower/unused.py": "import fake.page\n",
    "late.py": "import fake.loss\n",
    "far.py": "from elsewhere import *\n",
    "page.py": "from fake.loss import anything\n",
}
LOSS = {f"fake{name}" for name in ("", ".loss", ".lower", ".lower.sums", ".lower.words", ".late", ".far")} | {
    "fake.lower.given",
    "fake.lower.near",
}


@pytest.fixture
def fake(tmp_path):
    for name, text in FILES.items():
        file = tmp_path / "fake" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "fake"


def test_modules_count_that_are_imported_in_functions_by_packages_in_circles_or_relatively(fake):
    assert code.sources([{"_target_": "fake.loss.Loss"}], fake).keys() == LOSS
    assert code.sources([{"_target_": "fake.page.Page"}], fake).keys() == LOSS | {"fake.page"}
    assert code.sources([{"_target_": "elsewhere.loss.Loss"}], fake) == {}


def test_a_configuration_counts_as_deep_as_it_goes(fake):
    config = {"defense": {"_target_": "other.Defense", "parts": [{"_target_": "fake.far.Far"}]}, "steps": 3}
    assert code.sources([config], fake).keys() == {"fake", "fake.far"}


def test_what_comes_back_is_the_source(fake):
    (fake / "far.py").write_text("edited = True\n")
    assert code.sources([{"_target_": "fake.loss"}], fake)["fake.far"] == b"edited = True\n"


@dataclass(frozen=True)
class Holder:
    inner: object


def test_an_object_counts_with_all_it_holds():
    parts = [Holder({"judge": Evaluation({"refusal": Refusal()}), "numbers": (1, "two", None)})]
    assert {"immunax.judges.evaluate", "immunax.judges.refusal"} <= code.sources(parts).keys()


def organism():
    decoder = DecoderConfig("llama", 160, 32, 64, 1, 2, 2, 16, 96, tie_embeddings=True)
    return Pretrained(OrganismTasks(), decoder, Pretraining(), Training(steps=1))


@pytest.mark.parametrize("parts", [[organism()], [start_model], [measure], [red_team]])
def test_no_page_command_or_other_defense_makes_a_model_or_a_measurement_anew(parts):
    found = code.sources(parts)
    far = ("immunax.certificate", "immunax.pod", "immunax.train", "immunax.certify", "immunax.defenses.tar")
    assert [name for name in found if name.startswith(far)] == []
    assert "immunax.models.decoder" in found


def test_what_the_organism_is_made_by_and_from_makes_it_anew():
    wanted = {
        "inner.optimizers",
        "inner.losses",
        "outer.training",
        "defenses.pretraining",
        "models.decoder",
        "data.organism",
        "data.organism.corpus",
        "data.organism.world",
    }
    assert {f"immunax.{name}" for name in wanted} <= code.sources([organism()]).keys()


def test_an_edit_changes_the_digest_of_what_it_can_change_and_of_nothing_else(monkeypatch):
    edited = {"immunax.certificate.report.html", "immunax.judges.refusal"}
    parts = {"organism": [organism()], "answers": [red_team, Refusal()]}
    before = {name: code.code_digest(each) for name, each in parts.items()}
    read = code.sources
    monkeypatch.setattr(
        code, "sources", lambda each: {name: source + b"#" * (name in edited) for name, source in read(each).items()}
    )
    assert {name: code.code_digest(each) == before[name] for name, each in parts.items()} == {
        "organism": True,
        "answers": False,
    }


def test_an_edit_while_a_command_runs_changes_nothing(monkeypatch):
    before = code.code_digest([red_team]), code.package_digest()

    def edited(path):
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(Path, "read_bytes", edited)
    assert (code.code_digest([red_team]), code.package_digest()) == before
