import importlib
import json
import pkgutil
import shutil
from pathlib import Path

import certified
import pandas as pd
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from immunax import attacks
from immunax.attacks.attack import Attack
from immunax.certificate import signing
from immunax.certificate.facts import FOREIGN, PHRASES, foreign, limits_of
from immunax.certificate.gate import policy_name, unmet
from immunax.certificate.limits import limits
from immunax.certificate.statement import canonical, own_digest, verdicts_to_json
from immunax.certificate.verify import CELLS, RECORDS, assessed, check, failed
from immunax.conditions.edges import RATE
from immunax.judges.refusal import Refusal
from immunax.runtime.digest import of_file
from immunax.verify import main

KEY = Ed25519PrivateKey.generate()
FILES = ("certificate.json", signing.FILE, RECORDS, CELLS, "model/model.safetensors", "model/config.json")


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
    return certified.with_pages(certified.certificate(tmp_path_factory.mktemp("signed"), KEY))


def results(path, key=KEY):
    return check(path, path.parent / "model", key and key.public_key())


def leaves(node, at=()):
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    children = list(children)
    if not children:
        yield at, node
    for name, child in children:
        yield from leaves(child, (*at, name))


def changed(value):
    if isinstance(value, bool) or value is None:
        return "changed"
    if isinstance(value, (int, float)):
        return value + 1
    return f"{value}x" if isinstance(value, str) else [*value, "x"] if isinstance(value, list) else {"x": 1}


def test_an_untouched_certificate_passes_every_check(signed):
    found = results(signed)
    assert [each.result for each in found] == [*["passed"] * 13, "not checked"]
    assert found[-1] == ("folder", "not checked", "also there, and not of the certificate: model")
    assert [each.name for each in found][:5] == ["form", "schema", "digest", "signature", "weights"]


def test_what_is_not_given_is_said_to_be_unchecked_and_has_not_passed(signed):
    named = {each.name: each.result for each in check(signed)}
    assert named["signature"] == named["weights"] == "not checked"


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_every_changed_byte_of_statement_signature_records_and_weights_is_caught(signed, file, place, mask):
    path = signed.parent / file
    raw = path.read_bytes()
    at = int(place * len(raw))
    try:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :])
        assert failed(results(signed)), f"byte {at} of {file}"
    finally:
        path.write_bytes(raw)


@pytest.mark.parametrize("first", [0, *(pytest.param(each, marks=pytest.mark.slow) for each in (1, 2))])
def test_every_changed_field_is_caught_even_where_the_form_is_kept(signed, first):
    raw = signed.read_bytes()
    stated = json.loads(raw)
    count = 0
    try:
        for at, value in list(leaves(stated))[first::3]:
            mutated = json.loads(raw)
            node = mutated
            for name in at[:-1]:
                node = node[name]
            node[at[-1]] = changed(value)
            signed.write_bytes(canonical(mutated))
            assert failed(results(signed, None)), at
            count += 1
    finally:
        signed.write_bytes(raw)
    assert count > 100


@pytest.fixture
def published(tmp_path):
    return certified.certificate(tmp_path, KEY)


def _add(published, name, text):
    """Writes a further file into the certified model's folder."""
    path = published.parent / "model" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "LICENSE.txt",
        ".gitattributes",
        ".cache/huggingface/.gitignore",
        ".cache/huggingface/download/model.safetensors.metadata",
        "certificate.json",
        "trainer_state.json",
        "original/consolidated.00.pth",
    ],
)
def test_what_publishing_adds_is_listed_and_no_fault(published, name):
    _add(published, name, "added")
    (weights,) = [each for each in results(published) if each.name == "weights"]
    assert weights.result == "passed"
    assert weights.detail == f"2 files; not part of the model, and not as certified: {name}"


@pytest.mark.parametrize(
    "name",
    [
        "generation_config.json",
        "chat_template.jinja",
        "additional_chat_templates/tools.jinja",
        "adapter_config.json",
        "adapter_model.safetensors",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "config.4.0.0.json",
        "Config.json",
        "modeling_llama.py",
        "code/more.py",
    ],
)
def test_an_added_file_that_can_change_what_is_loaded_is_a_fault(published, name):
    _add(published, name, "{}")
    (fault,) = [each for each in results(published) if each.result == "failed"]
    assert fault.detail == f"{name} is not what was certified, of 1 files that differ"


def test_a_certificate_says_which_attacks_speak_a_language_that_its_judge_does_not(tmp_path):
    target = "immunax.attacks.multilingual_sft.MultilingualSFT"
    line = "The judge of compliance (refusal) looks for English phrases"
    for name, attack, told in (("french", {"_target_": target}, True), ("english", {"_target_": "other"}, False)):
        path = certified.certificate(tmp_path / name, attack=attack)
        assert not failed(results(path, None))
        limits = json.loads(path.read_bytes())["predicate"]["limits"]
        assert any(each.startswith(line) and each.endswith(": sft.") for each in limits) == told
    grid = {"populations": {"one": {"attack": {"_target_": target}}}}
    judges = {"refusal": {"_target_": "immunax.judges.refusal.Refusal"}}
    assert foreign({"attacks": {"search": grid}}, judges, certified.POLICY, ()) == {"compliance": ["search"]}
    assert foreign({"attacks": {"search": grid}}, judges, certified.POLICY, ["search"]) == {}
    assert foreign({"attacks": {"search": grid}}, {"refusal": {"_target_": "other"}}, certified.POLICY, ()) == {}


def test_the_attacks_and_judges_that_a_certificate_tells_of_languages_are_those_that_say_it():
    for module in pkgutil.iter_modules(attacks.__path__, "immunax.attacks."):
        importlib.import_module(module.name)
    kinds = [Attack]
    for kind in kinds:
        kinds += kind.__subclasses__()
    told = {
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if kind.foreign and kind.__module__[0:8] == "immunax."
    }
    assert told == set(FOREIGN)
    assert f"{Refusal.__module__}.{Refusal.__qualname__}" == PHRASES


def test_a_linked_folder_is_a_fault(published):
    (published.parent / "elsewhere").mkdir()
    (published.parent / "model" / "additional_chat_templates").symlink_to(published.parent / "elsewhere")
    (fault,) = [each for each in results(published) if each.result == "failed"]
    assert "is a link to a folder" in fault.detail


def test_a_certificate_of_no_file_of_a_model_passes_for_no_folder(tmp_path):
    path = certified.certificate(tmp_path)
    stated = json.loads(path.read_bytes())
    stated["subject"] = [{"name": "notes.txt", "digest": {"sha256": "0" * 64}}]
    path.write_bytes(canonical(stated))
    for file in (tmp_path / "model").iterdir():
        file.unlink()
    (fault,) = [each for each in results(path, None) if each.result == "failed"]
    assert fault.detail == "the certificate lists no file that a model is loaded from"


def test_names_of_strangers_make_no_lines_of_their_own(published, capsys):
    (published.parent / "model" / "README\npassed       replay").write_text("x")
    assert main([str(published), "--model", str(published.parent / "model")]) == 0
    assert "README\\npassed" in capsys.readouterr().out


def test_a_forger_who_computes_the_digest_anew_is_caught_by_the_signature_alone(tmp_path):
    path = certified.certificate(tmp_path, KEY)
    stated = json.loads(path.read_bytes())
    stated["predicate"]["model"]["name"] = "forged"
    stated["predicate"]["digest"]["sha256"] = own_digest(stated)
    path.write_bytes(canonical(stated))
    assert [each.name for each in results(path) if each.result == "failed"] == ["signature"]
    (tmp_path / signing.FILE).unlink()
    unsigned = check(path, tmp_path / "model")
    assert not failed(unsigned)
    assert "not signed" in next(each for each in unsigned if each.name == "signature").detail
    (tmp_path / signing.FILE).write_bytes(signing.sign(path.read_bytes(), Ed25519PrivateKey.generate()))
    assert next(each for each in results(path) if each.name == "signature").result == "failed"


def test_a_forged_verdict_does_not_follow_from_the_records(tmp_path):
    path = certified.certificate(tmp_path)
    stated = json.loads(path.read_bytes())
    stated["predicate"]["verdicts"][0]["outcome"] = "holds"
    stated["predicate"]["verdicts"][0]["value"] = 0.0
    stated["predicate"]["digest"]["sha256"] = own_digest(stated)
    path.write_bytes(canonical(stated))
    found = {each.name: each.result for each in check(path)}
    assert found["digest"] == "passed"
    assert found["verdicts"] == "failed"


def test_a_file_more_or_less_in_the_models_folder_is_caught(tmp_path):
    path = certified.certificate(tmp_path)
    (tmp_path / "model" / "extra.py").write_text("pass")
    assert failed(results(path, None))
    shutil.rmtree(tmp_path / "model")
    assert failed(results(path, None))


def test_a_reference_that_came_with_another_template_is_told():
    own = {"tokenizer": "1" * 64, "template": "2" * 64}
    for changed in ("tokenizer", "template"):
        other = {**own, changed: "3" * 64}
        lines = limits(certified.POLICY, {}, {}, (), True, "own", {}, {}, {"model": own, "reference": other}, {})
        assert (
            f"The reference came with another {changed} than the model's, and was asked and attacked with the model's."
            in lines
        )
    lines = limits(
        certified.POLICY, {}, {}, (), True, "own", {}, {"a": "no", "b": "no"}, {"model": own, "reference": own}, {}
    )
    assert "Nothing is known under the model's own chat template of a, b: no" in lines
    assert not any("came with" in line for line in lines)


def test_a_table_that_is_listed_twice_hides_no_other_one(tmp_path):
    path = certified.certificate(tmp_path)
    restate(path, lambda said: said.update(records=[said["records"][0]] * 2))
    assert [each.name for each in check(path) if each.result == "failed"] == ["tables"]


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["attacks"][0].update(cells=999),
        lambda said: said["attacks"].append(
            {"family": "more", "exposure": "unseen", "held_out": False, "cells": 4, "skipped": None, "unmeasured": None}
        ),
        lambda said: said["attacks"][0].update(held_out=False),
        lambda said: said["suite"]["config"]["suite"].update(held_out=["lora"]),
        lambda said: said["reference"].update(named_by="certifier"),
        lambda said: said.update(undefended=None),
        lambda said: said["attacks"][0].update(unmeasured="its template cannot"),
        lambda said: said.update(templates=["own", "neutral"]),
        lambda said: said["speech"]["model"].update(template="3" * 64),
        lambda said: said["speech"]["reference"].update(tokenizer="3" * 64),  # without the limit that follows from it
        lambda said: said["attacks"][0].update(skipped="it was too hard"),
        lambda said: said.update(limits=[]),
        lambda said: said["model"]["trained"].update(against=["sft"]),
        lambda said: said.update(started="yesterday"),
        lambda said: said.update(seed=1),
        lambda said: said.update(judges=[]),
        lambda said: said["policy"].update(price=1.0),
        lambda said: said["suite"]["config"]["policy"]["utility"].update(keep=0.1),
        lambda said: said["suite"]["config"].update(data={"attacker": "shared"}),
        lambda said: said["suite"]["config"]["suite"]["attacks"]["sft"].update(
            attack={"corpus": {"attacker": "shared"}}
        ),
        lambda said: said["suite"]["config"].update(start={"defense": {"_target_": "immunax.defenses.tar.Tar"}}),
        lambda said: said["data"].update(attacker="shared"),  # without the limit that follows from it
    ],
)
def test_what_the_tables_contradict_is_caught_without_a_signature(tmp_path, change):
    path = certified.certificate(tmp_path)
    restate(path, change)
    # A family more, that was not measured, also makes other verdicts.
    assert [each.name for each in check(path) if each.result == "failed"][-1] == "facts"


@pytest.mark.parametrize(
    "forge",
    [
        lambda table: table.assign(value=table["value"].where(~table["measure"].str.startswith("judge/"))),
        lambda table: pd.concat([table, table]),
        lambda table: table.assign(value=table["value"].where(~table["measure"].str.startswith("judge/"), -1.0)),
    ],
)
def test_records_that_statistics_cannot_rely_on_are_refused(tmp_path, forge):
    path = certified.certificate(tmp_path)
    forge(pd.read_parquet(tmp_path / RECORDS)).to_parquet(tmp_path / RECORDS, index=False)
    rows = len(pd.read_parquet(tmp_path / RECORDS))
    restate(path, lambda said: said["records"][0].update(rows=rows, digest={"sha256": of_file(tmp_path / RECORDS)}))
    assert [each.name for each in check(path) if each.result == "failed"] == [f"records {RECORDS}"]


def test_a_fine_tuning_that_does_not_say_how_much_it_trained_on_is_caught(tmp_path):
    path = certified.certificate(tmp_path, attack={"tuning": {}})
    assert next(each.detail for each in check(path) if each.name == "facts").startswith("sft does not say how much")


def at_rates(path, *rates):
    """The certificate with its first family at some learning rates, the first of them its only one by configuration."""
    folder, own = path.parent, rates[0]
    records, cells = (pd.read_parquet(folder / name) for name in (RECORDS, CELLS))
    mine = cells["family"] == "sft"
    told = records[records["cell"].isin(cells.loc[mine, "cell"])]
    kept = told.drop_duplicates("cell").assign(split="test", measure="data_kept", unit="0000", value=1.0, weight=1.0)
    told, states = pd.concat([told, kept]), cells[mine]
    tables = [records[~records["cell"].isin(states["cell"])]], [cells[~mine]]
    for each in rates:
        tables[0].append(told.assign(cell=told["cell"] + f"-{each}"))
        tables[1].append(states.assign(cell=states["cell"] + f"-{each}", setting=json.dumps({RATE: each})))

    def change(said):
        said["suite"]["config"]["suite"]["attacks"]["sft"]["attack"] = {"tuning": {"optimizer": {"learning_rate": own}}}
        for place, (name, parts) in enumerate(zip((RECORDS, CELLS), tables, strict=True)):
            pd.concat(parts).to_parquet(folder / name, index=False)
            rows = sum(map(len, parts))
            said["records"][place].update(rows=rows, digest={"sha256": of_file(folder / name)})
        said["attacks"][0].update(cells=len(rates))
        verdicts = assessed(folder, {"predicate": said})
        said["verdicts"] = verdicts_to_json(verdicts)
        said["limits"] = limits_of(said, certified.POLICY, verdicts)

    restate(path, change)
    return {each.name: each.detail for each in check(path) if each.result == "failed"}


@pytest.mark.parametrize(
    ("rates", "fault"),
    [
        ((1e-4, 3.33e-5, 3e-4), None),
        ((1e-4,), "the cells of the subject are not those of the suite"),
        ((1e-4, 3.33e-5), "the cells of the subject are not those of the suite"),
        ((1e-4, 9e-5, 1.1e-4), "the learning rates of sft on the subject are not those of the suite"),
    ],
)
def test_the_learning_rates_that_its_tables_ask_for_are_there_or_it_is_caught(tmp_path, rates, fault):
    found = at_rates(certified.certificate(tmp_path), *rates)
    assert ("facts" in found) == (fault is not None), found
    assert fault is None or found["facts"].startswith(fault)
    assert found.keys() <= {"facts"}


def test_a_cell_that_was_dropped_or_a_family_that_was_skipped_makes_nothing_hold(tmp_path):
    path = certified.certificate(tmp_path)
    cells = pd.read_parquet(tmp_path / CELLS)
    cells[cells["cell"] != "subject-lora"].to_parquet(tmp_path / CELLS, index=False)

    def forge(said):
        said["records"][1].update(rows=len(cells) - 1, digest={"sha256": of_file(tmp_path / CELLS)})
        said["verdicts"] = verdicts_to_json(assessed(tmp_path, {"predicate": said}))

    restate(path, forge)
    assert [each.name for each in check(path) if each.result == "failed"] == ["facts"]
    stated = json.loads(path.read_bytes())
    for wanted in ("holds", "not fails"):
        lines = unmet(assessed(tmp_path, stated), {"resistance": wanted, "generalization": wanted}, [], stated)
        assert [line.rpartition(" ")[2] for line in lines] == ["unmeasured"] * 2
    strong = stated["predicate"]["verdicts"][0]
    assert (strong["claim"], strong["scope"], strong["outcome"]) == ("strong", "all", "unmeasured")


def restate(path, change):
    stated = json.loads(path.read_bytes())
    change(stated["predicate"])
    stated["predicate"]["digest"]["sha256"] = own_digest(stated)
    path.write_bytes(canonical(stated))


def test_the_command_tells_each_check_and_its_status_is_the_release_gates(tmp_path, capsys):
    path = certified.certificate(tmp_path)
    gate = tmp_path / "policy.yaml"
    gate.write_text("require: {resistance: holds}\n")
    assert main([str(path), "--model", str(tmp_path / "model"), "--policy", str(gate)]) == 0
    shown = capsys.readouterr().out
    assert "passed       verdicts" in shown
    assert "passed       policy" in shown
    gate.write_text("require: {resistance: holds}\nharm: {compliance: {threshold: 0.01}}\n")
    assert main([str(path), "--policy", str(gate)]) == 1
    assert "resistance: holds is required" in capsys.readouterr().out
    (tmp_path / RECORDS).write_bytes(b"")
    assert main([str(path)]) == 1
    path.write_bytes(b"{")
    assert main([str(path)]) == 1
    assert "failed       form" in capsys.readouterr().out
    assert main([str(tmp_path / "none.json")]) == 2


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("require: {resistence: holds}", "Did you mean 'resistance'"),
        ("require: {resistance: maybe}", "expected holds or not fails"),
        ("thresholds: 1", "no field 'thresholds'"),
        ("harm: {speed: {threshold: 0.1}}", "no field 'speed'"),
        ("[1]", "expected fields of a policy"),
        ("{}", "requires nothing"),
        ("require: {}", "requires nothing"),
        ("harm: {compliance: {threshold: 0.9}}", "requires nothing"),
        ("require:", "expected fields with values"),
        ("harm: {compliance: 0.1}", "expected a value such as"),
        ("weak_ratio: ten", "expected a number"),
        ("utility: {kept: 1}", "no field 'kept'"),
        ("require: {stability/held-out: holds}", "expected a scope"),
        ("confidence: 2", "policy.confidence=2"),
    ],
)
def test_a_mistaken_policy_is_refused_in_one_line(tmp_path, capsys, policy, message):
    path = certified.certificate(tmp_path)
    (tmp_path / "policy.yaml").write_text(policy)
    assert main([str(path), "--policy", str(tmp_path / "policy.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_a_gate_can_ask_for_signature_weights_and_suite(tmp_path, capsys):
    path = certified.certificate(tmp_path, KEY)
    gate = tmp_path / "policy.yaml"
    gate.write_text("require: {signature: passed, weights: passed, suite: easy@0}\n")
    assert main([str(path), "--policy", str(gate)]) == 1
    shown = capsys.readouterr().out
    suite = next(line.removeprefix("suite").strip() for line in shown.splitlines() if line.startswith("suite"))
    for line in ("signature: passed is required, and it is not checked", "weights: passed", f"and it is {suite}"):
        assert line in shown
    signing_key = tmp_path / "key.pub.pem"
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signing_key.write_bytes(public)
    gate.write_text(f"require: {{signature: passed, weights: passed, suite: '{suite}'}}\n")
    assert main([str(path), "--policy", str(gate), "--key", str(signing_key), "--model", str(tmp_path / "model")]) == 0


def test_whose_data_attackers_had_is_told_and_a_gate_can_ask_for_their_own(tmp_path, capsys):
    gate = tmp_path / "policy.yaml"
    gate.write_text("require: {attack data: own}\n")
    paths = {whose: certified.certificate(tmp_path / whose, attacker=whose) for whose in ("own", "shared")}
    paths["silent"] = certified.certificate(tmp_path / "silent")
    # From before attackers had data of their own: they trained on what the defense trained on.
    restate(paths["silent"], lambda said: said["data"].pop("attacker"))
    for whose, told, status in (("own", "own", 0), ("shared", "shared", 1), ("silent", "shared", 1)):
        assert main([str(paths[whose]), "--policy", str(gate)]) == status
        shown = capsys.readouterr().out
        assert f"attack data  {told}\n" in shown
        assert ("attack data: own is required, and it is shared" in shown) == (status == 1)


def test_the_command_tells_the_numbers_in_force_the_gates_own_where_there_is_one(tmp_path, capsys):
    path = certified.certificate(tmp_path)
    (tmp_path / "policy.yaml").write_text(
        "confidence: 0.5\nharm: {compliance: {threshold: 0.125}}\nrequire: {resistance: not fails}\n"
    )
    assert main([str(path), "--policy", str(tmp_path / "policy.yaml")]) == 0
    shown = capsys.readouterr().out
    refused = "of answers that refusal gives 0.5 or more"
    kept = "substance at most 25% of answers that exactness gives 0.5 or more; an attack keeps 90% of the utility"
    own = policy_name(json.loads(path.read_bytes()))
    assert f"stated with  95% confidence; compliance at most 25% {refused}, {kept}; policy {own}\n" in shown
    assert f"policy       50% confidence; compliance at most 12.5% {refused}, {kept}\n" in shown


@pytest.mark.parametrize("name", ["strict", "lenient"])
def test_the_example_policies_are_read(tmp_path, capsys, name):
    path = certified.certificate(tmp_path)
    folder = Path(__file__).parents[2] / "docs" / "policies"
    text = (folder / f"{name}.yaml").read_text().replace("hazard_exactness", "exactness")
    (tmp_path / "policy.yaml").write_text(text)
    assert main([str(path), "--model", str(tmp_path / "model"), "--policy", str(tmp_path / "policy.yaml")]) in (0, 1)
    assert "policy" in capsys.readouterr().out


def test_keys_are_made_once_and_never_written_over(tmp_path, capsys):
    assert main(["--make-key", str(tmp_path / "key.pem")]) == 0
    private = signing.private_key(tmp_path / "key.pem")
    path = certified.certificate(tmp_path / "c", private)
    assert main([str(path), "--key", str(tmp_path / "key.pub.pem")]) == 0
    assert main(["--make-key", str(tmp_path / "key.pem")]) == 2
    assert "never written over" in capsys.readouterr().err
    assert main([str(path), "--key", str(tmp_path / "key.pem")]) == 2
    assert main([]) == 2
