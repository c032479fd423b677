import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from immunax.certificate.bundle import folder_fault, sign_folder
from immunax.runtime.errors import UserError

pytest.importorskip("model_signing", reason="the extra 'signing' is not installed")


def test_a_bundle_vouches_for_a_folder_until_a_byte_of_it_changes(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    sign_folder(folder, tmp_path / "key.pem", tmp_path / "model.sig")
    assert folder_fault(folder, tmp_path / "key.pub", tmp_path / "model.sig") is None
    (folder / "model.safetensors").write_bytes(b"weighty")
    assert folder_fault(folder, tmp_path / "key.pub", tmp_path / "model.sig") is not None
    with pytest.raises(UserError, match="P-256"):
        sign_folder(folder, tmp_path / "key.pub", tmp_path / "again.sig")
