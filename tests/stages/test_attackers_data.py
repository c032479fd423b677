from dataclasses import asdict

import pytest
from omegaconf import OmegaConf

from immunax.data.dialog import Split, Splits, ask
from immunax.data.organism import OrganismTasks
from immunax.runtime import digest, manifest
from immunax.runtime.errors import UserError
from immunax.stages.attackers_data import attackers_data, made_by, marked

SPLITS = OrganismTasks().splits()


def record(**fields):
    """The manifest of a run whose defense trained on the organism's data with some fields changed."""
    data = {"_target_": "immunax.data.organism.OrganismTasks", **fields}
    found = OrganismTasks(**fields).splits()
    return {"config": {"data": data, "defense": {}}, "digests": {"data": digest.of_json(asdict(found))}}


def whose(made, splits):
    """Of the attackers, as the commands ask it."""
    return attackers_data(made, splits, digest.of_json(asdict(splits)))


def test_attackers_have_their_own_data_where_no_prompt_of_theirs_was_trained_on():
    assert whose(None, SPLITS) == whose(record(), SPLITS) == "own"
    shared = OrganismTasks(attacker="shared").splits()
    assert whose(None, shared) == whose(record(), shared) == "shared"
    # The run may have been made for attackers who share: its defense trained on the same examples.
    assert whose(record(attacker="shared"), SPLITS) == "own"


def test_a_run_that_trained_on_what_is_now_the_attackers_shares_it():
    assert whose(record(seed=1), SPLITS) == "shared"


def test_a_run_whose_data_cannot_be_made_anew_is_taken_to_share(capsys):
    old = record()
    old["digests"]["data"] = "0" * 64
    assert whose(old, SPLITS) == "shared"
    assert "no longer makes" in capsys.readouterr().err
    source = {"_target_": "immunax.data.sources.Source", "path": "absent.jsonl", "splits": {"train": 1.0}}
    corpus = {"_target_": "immunax.data.corpora.Corpus", "name": "c", "retain": {"rows": source}}
    elsewhere = {"config": {"data": corpus, "defense": {}}, "digests": {}}
    assert whose(elsewhere, SPLITS) == "shared"
    assert "cannot be read" in capsys.readouterr().err


def test_texts_without_prompts_are_told_apart_by_their_words():
    one, other = (Split(retain=(ask("", text),)) for text in ("a", "b"))
    plain = [Split(retain=tuple(type(each)((), each.answer) for each in split.retain)) for split in (one, other)]
    assert Splits(plain[0], plain[1]).attacker == "own"
    assert Splits(plain[0], plain[0]).attacker == "shared"


def test_the_run_that_made_a_model_is_found_from_its_folder_and_its_export(tmp_path):
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    assert made_by(None) is made_by(run) is made_by(tmp_path / "no" / "model") is None
    manifest.write_manifest(run, OmegaConf.create({"defense": {"alpha": 1}}), {})
    assert made_by(run)["config"]["defense"] == made_by(str(run / "model"))["config"]["defense"] == {"alpha": 1}
    manifest.write_manifest(tmp_path / "attacked", OmegaConf.create({"attack": {}}), {})
    assert made_by(tmp_path / "attacked") is None
    (run / manifest.FILE).write_text("{")
    with pytest.raises(UserError):
        made_by(run)


def test_titles_are_marked_where_data_are_shared():
    assert (marked("run", "own"), marked("run", "shared")) == ("run", "run (attack data shared)")
