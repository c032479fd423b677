"""What a configuration from elsewhere may become: our own dataclasses, by a table, and nothing else."""

import dataclasses
import math
import re
import sys
from pathlib import Path

import pytest

import immunax
from immunax.attacks.prune import Prune
from immunax.campaign.grid import Population
from immunax.data.corpora import Corpus
from immunax.defenses.rep_noise import RepNoise
from immunax.judges.evaluate import Evaluation
from immunax.outer.defense import Defense
from immunax.runtime.admission import MOST, admit
from immunax.runtime.catalogue import NAMES, listed
from immunax.runtime.errors import UserError
from immunax.runtime.launch import composed
from immunax.runtime.user_config import UserConfig

PACKAGE = Path(immunax.__file__).parent
PRUNE = {"_target_": "immunax.attacks.prune.Prune", "sparsity": 0.5}
DOWN = 10**4 * [{"a": 1}]


def deep(depth):
    node = {}
    for _ in range(depth):
        node = {"a": node}
    return node


def test_a_configuration_of_our_own_classes_is_built():
    assert admit(PRUNE, Prune, "it") == Prune(0.5)
    nested = {"_target_": "immunax.campaign.grid.Population", "attack": PRUNE, "grid": {"sparsity": [0.1, 0.2]}}
    assert admit(nested, Population, "it") == Population(Prune(0.5), {"sparsity": [0.1, 0.2]})


@pytest.mark.parametrize(
    ("node", "told"),
    [
        ({"_target_": "builtins.open", "file": "x"}, "not one of the classes"),
        ({"_target_": "numpy.load", "file": "x"}, "not one of the classes"),
        ({"_target_": "immunax.runtime.cache.os.system", "command": "true"}, "not one of the classes"),
        ({"_target_": "immunax.runtime.atomic.directory", "path": "x"}, "not one of the classes"),
        ({"_target_": "immunax.judges.endpoint.Endpoint"}, "not one of the classes"),
        ({"_target_": "immunax.judges.local.LocalModel"}, "not one of the classes"),
        ({"_target_": ["immunax.attacks.prune.Prune"]}, "not one of the classes"),
        ({"_target_": {}}, "not one of the classes"),
        ({"_target_": None}, "not one of the classes"),
        ({**PRUNE, "_args_": [0.5]}, "unknown field _args_"),
        ({**PRUNE, "_partial_": True}, "unknown field _partial_"),
        ({**PRUNE, "sparsity": "${oc.env:HOME}"}, "expected a number"),
        ({**PRUNE, "sparsity": math.nan}, "not finite"),
        ({**PRUNE, "sparsity": 10**400}, f"more than {MOST}"),
        ({**PRUNE, "sparsity": None}, "expected a number"),
        ({**PRUNE, "sparsity": 7.0}, "sparsity"),
        ({**PRUNE, "sparsity": b"x"}, "is a bytes"),
        ({**PRUNE, 5: 1}, "a name that is no text"),
        ({**PRUNE, None: 1}, "a name that is no text"),
        ({"_target_": "immunax.attacks.quantize.Quantize"}, "Prune was expected, and it is Quantize"),
        ({"sparsity": 0.5}, "Prune was expected, and it is dict"),
        (deep(10_000), "nested too deeply"),
        ({"a": DOWN * 11}, "too large"),
        ("x" * 70_000, "a text of 70000 characters"),
        (None, "NoneType"),
        ([], "list"),
    ],
)
def test_anything_else_is_refused_in_one_line_that_says_what_it_was(node, told):
    with pytest.raises(UserError, match=re.escape(told)) as caught:
        admit(node, Prune, "the certificate's configuration")
    assert str(caught.value).startswith("the certificate's configuration is not obeyed: ")
    assert "\n" not in str(caught.value)


def test_a_node_within_is_refused_as_well():
    for node in (
        {"deep": [PRUNE, {"_target_": "os.system"}]},
        {"_target_": "immunax.campaign.grid.Population", "attack": 1},
    ):
        with pytest.raises(UserError):
            admit(node, Population, "it")


def test_what_a_field_is_not_for_is_refused_before_it_is_made():
    judges = {"judges": {"one": PRUNE}}
    with pytest.raises(UserError, match="is not obeyed"):
        admit({"_target_": "immunax.judges.evaluate.Evaluation", **judges}, Evaluation, "it")


def test_places_on_other_machines_are_left_out_of_data():
    hub = {"_target_": "immunax.data.online.Hub", "id": "some/where"}
    source = {"_target_": "immunax.data.sources.Source", "path": "x.jsonl", "splits": {"train": 1.0}, "hub": hub}
    corpus = {"_target_": "immunax.data.corpora.Corpus", "name": "x", "retain": {"all": source}}
    assert admit(corpus, Corpus, "it").retain["all"].hub is None


def test_nothing_is_imported_that_the_table_does_not_list(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError):
        admit({"_target_": "evil.Thing"}, Prune, "it")
    assert "evil" not in sys.modules


def test_every_name_of_the_table_is_a_dataclass_of_that_name():
    for name in NAMES:
        found = listed(name)
        assert dataclasses.is_dataclass(found)
        assert found.__name__ == name.rpartition(".")[2]


def test_every_class_that_our_own_configurations_name_is_in_the_table_or_speaks_to_others():
    named = {
        target
        for path in (PACKAGE.parent / "conf").rglob("*.yaml")
        if "hydra" not in path.parts  # which Hydra makes, of the command line alone
        for target in re.findall(r"_target_: ([\w.]+)", path.read_text())
    }
    far = {
        "online.Hub",
        "endpoint.Endpoint",
        "llm.LLMJudge",
        "local.LocalModel",
        "classifier.Classifier",
        "labelled.Labelled",
    }
    far |= {"metrics.Wandb", "metrics.Mlflow", "submitted.Submitted"}
    assert {".".join(name.split(".")[2:]) for name in named - NAMES.keys()} == far


@pytest.mark.parametrize("suite", ["smoke", "standard", "full"])
def test_every_suite_that_comes_with_the_package_may_be_replayed(suite):
    config = composed("certify", [f"suite={suite}"])
    assert admit(config.plain["suite"], type(config.build("suite")), "it") == config.build("suite")
    assert admit(config.plain["judge"], Evaluation, "it") == config.build("judge")


def test_a_runs_own_parts_are_admitted_as_the_user_gave_them():
    config = composed("train", ["+defense=rep_noise"])
    assert isinstance(admit(config.plain["defense"], Defense, "it"), RepNoise)
    assert admit(config.plain["start"], type(config.build("start")), "it") == config.build("start")


def test_only_the_launcher_makes_a_given_configuration():
    makers = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"(?<![\w.])UserConfig\(", path.read_text())
    ]
    assert sorted(makers) == ["runtime/job.py", "runtime/user_config.py"]
    users = [path.name for path in PACKAGE.rglob("*.py") if re.search(r"\bimportable\b", path.read_text())]
    assert sorted(users) == ["nodes.py", "overrides.py", "user_config.py"]


def test_nothing_else_of_the_package_turns_a_name_into_a_class():
    ways = re.compile(
        r"instantiate\(|get_object\(|get_class\(|resolve_name\(|import_module\(|__import__\(|\beval\(|\bexec\("
    )
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if ways.search(path.read_text())}
    # Trackers import the package that the user chose; code digests resolve names of modules to files, and import none; a child
    # process imports the program that its parent, never a file, names.
    others = {"runtime/metrics.py", "runtime/code.py", "runtime/untrusted/worker.py"}
    assert found == {"runtime/nodes.py", "runtime/catalogue.py", *others}


def test_a_given_configuration_is_read_by_names_and_changed_by_paths():
    given = UserConfig({"a": {"b": 1, "c": None}, "d": [1]})
    assert (given.a.b, given["a"]["c"], given.d, given.at("a.b"), given.at("a.x.y")) == (1, None, [1], 1, None)
    assert "a" in given
    assert given.a.get("x", 3) == 3
    with pytest.raises(AttributeError):
        _ = given.x
    assert given.with_values({"a.b": 2}).plain == {"a": {"b": 2, "c": None}, "d": [1]}
    assert given.a.b == 1
