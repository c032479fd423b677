"""Models of the Hub."""

import os
import subprocess
import sys

import pytest
import stub_hub

_PROGRAM = """
from immunax.models.download import download
from immunax.runtime import pace
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1 << 16
print(download("owner/name", None), pace.now().work, pace.now().moves)
"""


@pytest.mark.parametrize("bars", ["0", "1"])
def test_bytes_that_arrive_are_signs_of_work(tmp_path, bars):
    there = tmp_path / "there"
    there.mkdir()
    (there / "config.json").write_text("{}")
    (there / "model.safetensors").write_bytes(bytes(1 << 20))
    (there / "pytorch_model.bin").write_bytes(b"never read")
    with stub_hub.serve("owner/name", there) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": bars}
        done = subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path, work, moves = done.stdout.split()
    assert sorted(os.listdir(path)) == ["config.json", "model.safetensors"]
    assert int(work) == 0
    assert int(moves) >= (1 << 20) // (1 << 16)
