import certified
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from omegaconf import OmegaConf

from immunax.certificate.bundle import FILE, check_key, folder_fault, sign_folder
from immunax.certificate.signing import make_key
from immunax.runtime.errors import UserError
from immunax.stages.issue import keys
from immunax.stages.subject import Subject
from immunax.verify import main

pytest.importorskip("model_signing", reason="the extra 'signing' is not installed")


@pytest.fixture
def pair(tmp_path):
    """Files of a private and of a public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    return tmp_path / "key.pem", tmp_path / "key.pub"


def test_a_bundle_vouches_for_a_folder_until_a_byte_of_it_changes(tmp_path, pair):
    private, public = pair
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    sign_folder(folder, private, tmp_path / FILE)
    assert folder_fault(folder, public, tmp_path / FILE) is None
    (folder / "model.safetensors").write_bytes(b"weighty")
    assert folder_fault(folder, public, tmp_path / FILE) is not None


def test_a_bundle_allows_a_card_beside_what_was_signed_and_no_further_weights(tmp_path, pair):
    private, public = pair
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    sign_folder(folder, private, tmp_path / FILE)
    (folder / "README.md").write_text("card")
    assert folder_fault(folder, public, tmp_path / FILE) is None
    (folder / "adapter_model.safetensors").write_bytes(b"others")
    assert "adapter_model.safetensors is not signed" in folder_fault(folder, public, tmp_path / FILE)


def test_the_command_checks_the_bundle_beside_the_certificate(tmp_path, pair, capsys):
    private, public = pair
    path = certified.certificate(tmp_path / "c")
    model = path.parent / "model"
    asked = [str(path), "--model", str(model), "--bundle-key", str(public)]
    assert main(asked) == 1
    assert "failed       bundle" in capsys.readouterr().out
    sign_folder(model, private, path.with_name(FILE))
    assert main(asked) == 0
    assert "passed       bundle" in capsys.readouterr().out
    assert main([str(path), "--bundle-key", str(public)]) == 2


def test_a_key_that_cannot_sign_is_refused_before_anything_is_run(tmp_path, pair):
    make_key(tmp_path / "ed25519.pem")
    for path, message in (
        (tmp_path / "none.pem", "no file"),
        (pair[1], "cannot be read"),
        (tmp_path / "ed25519.pem", "no elliptic curve"),
    ):
        with pytest.raises(UserError, match=message):
            check_key(path)
    config = OmegaConf.create({"key": None, "bundle_key": str(pair[0])})
    with pytest.raises(UserError, match="no folder"):
        keys(config, Subject("made", {}, {}, "0" * 64, None, None, {}))
    assert keys(config, Subject("files", {}, {}, "0" * 64, tmp_path, None, {})).bundle == pair[0]
