import hashlib

import buckets
import jax
import numpy as np
import pytest
import tiny_model

from immunax.models import hub, weights
from immunax.runtime import bucket, mirror
from immunax.runtime.errors import UserError
from immunax.runtime.mesh import MeshSpec, build


@pytest.fixture
def model(bucket_server, tmp_path, monkeypatch):
    """A folder of a model, and the same in a bucket."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    folder, address = tiny_model.write(tmp_path / "model"), f"{buckets.made(bucket_server)}/model"
    for file in folder.iterdir():
        bucket.put(file, f"{address}/{file.name}")
    return folder, address


def test_a_model_in_a_bucket_is_the_one_on_a_disk_on_every_device_and_its_weights_stay_there(model):
    folder, address = model
    devices = build(MeshSpec(fsdp=2, tensor=2, data=2))
    one, other = (hub.ModelSource(str(each)).load(devices) for each in model)
    assert jax.tree.all(jax.tree.map(lambda mine, theirs: bool((mine == theirs).all()), one.params, other.params))
    assert one.digests == other.digests
    assert hub.digests(folder) == hub.digests(mirror.local(address))
    assert not (mirror.local(address) / "model.safetensors").exists()


def test_a_template_in_a_bucket_is_told_by_what_it_holds(model):
    _, address = model
    told = []
    for text in ("one", "another"):
        bucket.put_bytes(text.encode(), f"{address}.jinja")
        told.append(hub.ModelSource(address, chat_template=f"{address}.jinja").speech["chat_template"])
    assert told == [hashlib.sha256(text).hexdigest() for text in (b"one", b"another")]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_view_of_a_range_is_that_of_the_array(model, transposed):
    folder, address = model
    here, there = (weights.find(each) for each in (folder, hub.ModelSource(address).locate()))
    name = next(name for name, entry in here.entries.items() if len(entry.shape) == 2)
    array, view = (each.read_finite(name, here.entries[name].shape) for each in (here, there))
    if transposed:
        array, view = array.T, view.T
    assert view.shape == array.shape
    for index in ((slice(1, 3),), (slice(0, 2), slice(1, 4)), (slice(None), slice(2, None))):
        np.testing.assert_array_equal(view[index], array[index])
        np.testing.assert_array_equal(view[None][(slice(0, 1), *index)], array[None][(slice(0, 1), *index)])
    np.testing.assert_array_equal(np.asarray(view), array)


def test_only_the_rows_that_are_asked_for_are_read(model, monkeypatch):
    _, address = model
    there = weights.find(hub.ModelSource(address).locate())
    name, entry = next((name, entry) for name, entry in there.entries.items() if len(entry.shape) == 2)
    read, sizes = bucket.read, []
    monkeypatch.setattr(bucket, "read", lambda *asked: sizes.append(asked[2] - asked[1]) or read(*asked))
    there.read(name, entry.shape)[2:4]
    assert sizes == [2 * entry.shape[1] * weights.DTYPES[entry.dtype].itemsize]


@pytest.mark.parametrize("damage", [lambda raw: raw[:-4], lambda raw: raw + b"1234", lambda raw: b"\xff" * 8 + raw[8:]])
def test_a_file_that_is_cut_short_or_damaged_is_told_in_one_line(model, damage):
    folder, address = model
    bucket.put_bytes(damage((folder / "model.safetensors").read_bytes()), f"{address}/model.safetensors")
    with pytest.raises(UserError, match=f"{address}/model.safetensors: damaged or incomplete"):
        hub.ModelSource(address).load()


def test_a_half_written_or_missing_model_is_refused(model):
    _, address = model
    bucket.put_bytes(b"", f"{address}/{mirror.TORN}")
    with pytest.raises(UserError, match="half written"):
        hub.ModelSource(address).load()
    with pytest.raises(UserError, match=r"no such \.gguf file or Hugging Face folder"):
        hub.ModelSource(f"{address}s").load()
