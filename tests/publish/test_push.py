"""A push to a Hub, in this process: what is refused before anything is sent, and what stands there afterwards."""

import json
import shutil
from pathlib import Path

import certified
import pytest
import stub_hub
import tiny_model
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from huggingface_hub import ModelCard, constants
from stub_hub import Hub, Repo

from immunax.certificate.verify import check
from immunax.publish import upload
from immunax.push import main
from immunax.runtime.digest import of_folder

KEY = Ed25519PrivateKey.generate()
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model, and a certificate of it beside it."""
    folder = tmp_path_factory.mktemp("exported")
    tiny_model.write(folder / "model")
    certified.of_files(folder / "certificate", folder / "model", KEY)
    return folder


@pytest.fixture
def place(tmp_path, exported):
    """A copy of both."""
    return shutil.copytree(exported, tmp_path / "place")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub without repositories, which this process talks to."""
    monkeypatch.setenv("HF_TOKEN", stub_hub.TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with stub_hub.opened(Hub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(upload, "HfApi", lambda: upload.huggingface_hub.HfApi(endpoint=hub.address))
        yield hub


@pytest.fixture
def push(place, capsys):
    """Pushes the model with some words: the status, what was printed, and the last line of errors."""

    def push(*words, model="model", repo="owner/name"):
        status = main([str(place / model), *([f"repo={repo}"] if repo else []), *words])
        told = capsys.readouterr()
        assert stub_hub.TOKEN not in told.out + told.err
        return status, told.out, told.err.strip()

    return push


def held(hub, branch="main", repo="owner/name"):
    return hub.repos[repo].branches[branch][-1].files


def refused(done, *parts):
    status, out, err = done
    assert status == 2
    # The bar of a file that is sent is no line.
    [line] = [line for line in err.split("\n") if "\r" not in line]
    assert line.startswith("error: ")
    for part in parts:
        assert part in err
    return out


def test_a_push_sends_model_card_and_certificate_in_one_commit(hub, place, push):
    status, out, _ = push(f"certificate={place / 'certificate'}", "license=apache-2.0")
    assert status == 0
    assert len(hub.repos["owner/name"].branches["main"]) == 2
    files = held(hub)
    model = {path.name: path.read_bytes() for path in (place / "model").iterdir()}
    assert {name: files[name] for name in model} == model
    beside = {f"certificate/{path.name}": path.read_bytes() for path in (place / "certificate").iterdir()}
    assert {name: files[name] for name in beside} == beside
    assert files.keys() == {*model, *beside, "README.md", ".gitattributes"}
    assert "commit " in out.splitlines()[-1]


def test_what_was_sent_passes_every_check_again(hub, place, push, tmp_path):
    push(f"certificate={place / 'certificate'}")
    for name, content in held(hub).items():
        file = tmp_path / "again" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    found = check(tmp_path / "again" / "certificate" / "certificate.json", tmp_path / "again", KEY.public_key())
    assert [each for each in found if each.result != "passed"] == []


def test_the_card_has_the_fields_of_the_hub_and_the_certificates_numbers(hub, place, push):
    push(f"certificate={place / 'certificate'}", "license=llama3.1", "base_model=owner/base")
    text = held(hub)["README.md"].decode()
    fields = ModelCard(text, ignore_metadata_errors=False).data
    assert fields.license == "llama3.1"
    assert fields.base_model == "owner/base"
    assert fields.library_name == "transformers"
    assert fields.tags == ["immunax", "safety"]
    assert {each.dataset_name for each in fields.eval_results} == {"immunax suite made by hand"}
    assert "python -m immunax.verify owner/name" in text


def test_a_card_without_a_certificate_says_that_there_is_none(hub, push):
    push()
    text = held(hub)["README.md"].decode()
    assert "No certificate comes with this model" in text
    assert "immunax.verify" not in text
    assert ModelCard(text, ignore_metadata_errors=False).data.eval_results is None


def test_the_same_files_again_make_no_second_commit(hub, place, push):
    words = f"certificate={place / 'certificate'}", "license=mit"
    push(*words)
    status, out, _ = push(*words)
    assert status == 0
    assert "has these very files already" in out
    assert len(hub.repos["owner/name"].branches["main"]) == 2


def test_a_dry_run_tells_files_and_sizes_and_asks_the_hub_nothing(hub, place, push):
    status, out, _ = push(f"certificate={place / 'certificate'}", "dry_run=true")
    assert status == 0
    assert hub.asked == []
    size = (place / "model" / WEIGHTS).stat().st_size
    assert f"{size:,} bytes  {WEIGHTS}" in out
    assert "certificate/records.parquet" in out
    assert "would be sent to owner/name" in out


def test_a_certificate_of_other_weights_is_refused_before_the_hub_is_asked(hub, place, push):
    path = place / "model" / WEIGHTS
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    refused(push(f"certificate={place / 'certificate'}"), "weights: model.safetensors is not what was certified")
    assert hub.asked == []


def test_a_certificate_whose_page_was_edited_is_refused(hub, place, push):
    page = place / "certificate" / "report.html"
    page.write_text(page.read_text().replace("holds", "HOLDS", 1) + " ")
    refused(push(f"certificate={place / 'certificate'}"), "page report.html")
    assert hub.asked == []


def test_a_signature_by_another_key_is_refused(place, hub, push):
    key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (place / "other.pem").write_bytes(key)
    refused(push(f"certificate={place / 'certificate'}", f"key={place / 'other.pem'}"), "signature")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("records.jsonl", "is no file of a model"),
        ("train.parquet", "is no file of a model"),
        ("checkpoints/optimizer.json", "is no file of a model"),
        ("modeling_own.py", "may run code"),
        ("training_args.bin", "may run code"),
    ],
)
def test_a_file_that_is_no_models_is_refused(hub, place, push, name, reason):
    (place / "model" / name).parent.mkdir(exist_ok=True)
    (place / "model" / name).write_bytes(b"x")
    refused(push(), Path(name).name, reason)
    assert hub.asked == []


def test_licences_are_sent_and_what_a_download_left_is_not(hub, place, push):
    (place / "model" / "LICENSE.txt").write_text("free")
    for name in (".cache/huggingface/x.lock", ".git/config"):
        (place / "model" / name).parent.mkdir(parents=True)
        (place / "model" / name).write_bytes(b"x")
    assert push()[0] == 0
    assert held(hub)["LICENSE.txt"] == b"free"
    assert not [name for name in held(hub) if name.startswith((".cache", ".git/"))]


@pytest.mark.parametrize("name", ["LICENSE", "generation_config.json"])
def test_a_link_out_of_the_folder_is_refused(hub, place, push, name):
    (place / "private").write_text("{}")
    (place / "model" / name).unlink(missing_ok=True)
    (place / "model" / name).symlink_to(place / "private")
    refused(push(), "a link to a file outside the folder")


def test_a_linked_folder_is_refused(hub, place, push):
    (place / "model" / "more").symlink_to(place / "certificate")
    refused(push(), "is a link to a folder")


def test_of_a_certificates_folder_nothing_but_the_certificate_is_sent(hub, place, push):
    for name in ("manifest.json", "certify.log", "cells/one.parquet"):
        (place / "certificate" / name).parent.mkdir(exist_ok=True)
        (place / "certificate" / name).write_text("{}")
    assert push(f"certificate={place / 'certificate'}")[0] == 0
    assert not [name for name in held(hub) if "manifest" in name or "cells/" in name or name.endswith(".log")]


def run(place: Path, **changes) -> Path:
    """The model as the export of a run."""
    folder = place / "run"
    (place / "model").rename(folder / "model") if folder.mkdir() is None else None
    config = {"model": {"path": "owner/base"}, "defense": {"_target_": "immunax.defenses.tar.Tar"}}
    digests = {f"model/{name}": each for name, each in of_folder(folder / "model").items()}
    (folder / "records.jsonl").write_text("{}")
    record = {"config": config, "digests": digests, "ended": "now", **changes}
    (folder / "manifest.json").write_text(json.dumps({name: each for name, each in record.items() if each is not None}))
    return folder


def test_of_a_run_its_exported_model_is_sent_and_the_card_says_what_it_was_made_of(hub, place, push):
    run(place)
    assert push(model="run")[0] == 0
    files = held(hub)
    assert WEIGHTS in files
    assert "records.jsonl" not in files
    assert "manifest.json" not in files
    text = files["README.md"].decode()
    assert ModelCard(text).data.base_model == "owner/base"
    assert "with the defense Tar" in text


def test_a_run_that_has_not_ended_is_refused(hub, place, push):
    run(place, ended=None)
    refused(push(model="run"), "has not ended")


def test_a_run_whose_model_was_changed_is_refused(hub, place, push):
    folder = run(place)
    (folder / "model" / "generation_config.json").write_text('{"eos_token_id": 2}')
    refused(push(model="run"), "generation_config.json", "is not what the run left")


def test_a_card_of_the_models_own_is_sent_as_it_is(hub, place, push):
    own = "---\nlicense: mit\n---\n\nMine.\n"
    (place / "model" / "README.md").write_text(own)
    assert push()[0] == 0
    assert held(hub)["README.md"].decode() == own
    refused(push("license=mit"), "has a card of its own")


@pytest.mark.parametrize("text", ["---\nlicense: [\n---\n", "no fields at all\n"])
def test_a_card_of_its_own_that_the_hub_could_not_read_is_refused(hub, place, push, text):
    (place / "model" / "README.md").write_text(text)
    refused(push(), "README.md")
    assert hub.asked == []


def test_a_model_that_is_private_stays_so_and_a_public_repository_is_refused(hub, push):
    push("private=true")
    assert hub.repos["owner/name"].private
    hub.repos["owner/open"] = Repo()
    refused(push("private=true", repo="owner/open"), "everybody can see it")
    assert len(hub.repos["owner/open"].branches["main"]) == 1


def test_a_branch_is_made_and_the_main_one_stays(hub, push):
    assert push("revision=v1")[0] == 0
    assert WEIGHTS in held(hub, "v1")
    assert WEIGHTS not in held(hub)
    assert "already" in push("revision=v1")[1]


def test_files_of_another_model_are_refused_or_replaced_in_the_same_commit(hub, place, push):
    push(f"certificate={place / 'certificate'}")
    held(hub)["diagram.png"] = b"png"
    (place / "model" / WEIGHTS).write_bytes((place / "model" / WEIGHTS).read_bytes() + b"")
    refused(push(), "certificate/", "replace=true")
    assert push("replace=true")[0] == 0
    assert len(hub.repos["owner/name"].branches["main"]) == 3
    assert not [name for name in held(hub) if name.startswith("certificate/")]
    assert "diagram.png" in held(hub)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/commit/", 403, "may not write there"),
        ("/repos/create", 403, "may not write there"),
        ("/api/models", 404, "no such repository"),
        ("/commit/", 402, "no room left"),
        ("/commit/", 413, "larger than the Hub takes"),
        ("/commit/", 429, "too often"),
        ("/commit/", 500, "the Hub has a fault"),
        ("/validate-yaml", 403, "may not write there"),
        ("/lfs/", 403, "may not write there"),
        ("objects/batch", 403, "may not write there"),
    ],
)
def test_what_the_hub_refuses_is_one_line_and_no_commit(hub, push, path, status, said):
    hub.repos["owner/name"] = Repo() if "create" not in path else None
    if hub.repos["owner/name"] is None:
        del hub.repos["owner/name"]
    hub.refuses[path] = (status, f"because of {stub_hub.TOKEN}")
    refused(push(), said, str(status), "push again to see" if status >= 500 else "no commit was made")
    assert all(len(repo.branches["main"]) == 1 for repo in hub.repos.values())


def test_a_token_that_the_hub_does_not_know_is_told(hub, push, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    refused(push(), "does not know the token", "(401")


def test_without_a_token_the_line_says_where_one_comes_from(hub, push, monkeypatch):
    monkeypatch.setattr(upload.huggingface_hub, "get_token", lambda: None)
    refused(push(), "hf auth login", "HF_TOKEN")
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_is_told(hub, push, monkeypatch):
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setattr(upload, "HfApi", lambda: upload.huggingface_hub.HfApi(endpoint=nowhere))
    refused(push(), "cannot be reached", nowhere)


def test_a_large_file_that_arrives_damaged_makes_no_commit(hub, push):
    hub.damages = True
    refused(push(), "no commit was made")
    assert len(hub.repos["owner/name"].branches["main"]) == 1


def test_a_branch_that_moves_meanwhile_is_not_built_upon(hub, push, monkeypatch):
    held_back = upload.HfApi

    def moved():
        api = held_back()
        before = api.preupload_lfs_files

        def preupload(*given, **named):
            before(*given, **named)
            hub.repos["owner/name"].branches["main"].append(stub_hub.Commit({"x": b""}, "other"))

        api.preupload_lfs_files = preupload
        return api

    hub.repos["owner/name"] = Repo()
    monkeypatch.setattr(upload, "HfApi", moved)
    refused(push(), "changed meanwhile", "(412")


def test_weights_that_change_while_they_are_sent_make_no_commit(hub, place, push, monkeypatch):
    from immunax.publish import files

    monkeypatch.setattr(files, "_SMALL", 0)
    held_back = upload.HfApi

    def changed():
        raw = (place / "model" / WEIGHTS).read_bytes()
        (place / "model" / WEIGHTS).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        return held_back()

    monkeypatch.setattr(upload, "HfApi", changed)
    refused(push(), f"{WEIGHTS}: was changed while it was sent")
    assert len(hub.repos["owner/name"].branches["main"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("certficate=x",), "Did you mean 'certificate'?"),
        (("private=maybe",), "expected true or false"),
        (("license=Apache 2",), "license=Apache 2"),
        (("base_model=x",), "expected OWNER/NAME"),
        (("key=k.pem",), "means nothing without certificate="),
        (("license=mit", "license=mit"), "given twice"),
        (("certificate=nowhere",), "there is no such file"),
        (("--dry-run",), "no such option"),
        (("revision=",), "expected a value"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(push, words, said):
    refused(push(*words), said)


def test_a_push_names_one_model_and_one_repository(push, place):
    refused(push(repo=None), "repo=OWNER/NAME")
    refused(push(str(place / "model")), "2 models")
    refused(push(repo="name"), "expected OWNER/NAME")
    refused(push(model="nowhere"), "no folder")
    assert main(["repo=owner/name"]) == 2
    assert main(["gs://bucket/run", "repo=owner/name"]) == 2
