"""What a run leaves, computed by ``transformers`` 4.57 and 5 and by PEFT, in an environment of theirs.

``IMMUNAX_TORCH`` names a Python that has torch, transformers 5 and peft; 4.57 is installed over it for this test alone.
"""

import json
import os
import subprocess
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_model
from small import plain_logits

from immunax.inner.trainable import Adapters
from immunax.models.hub import ModelSource
from immunax.models.lora import LoraSpec, merge
from immunax.models.model import Model
from immunax.outer.training import Training
from immunax.stages import export
from immunax.stages.defend import Defended

IDS = [2, 5, 9, 11, 40, 7, 3]
SPEC = LoraSpec(2, 6.0, ("q_proj", "down_proj"), dropout=0.1, layers=(1,))
READ = """
    import json, sys, torch
    from pathlib import Path
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, __version__
    home, ids = Path(sys.argv[1]), torch.tensor([json.loads(sys.argv[2])])
    def logits(model):
        with torch.no_grad():
            return model.eval()(ids).logits[0].tolist()
    load = lambda name: AutoModelForCausalLM.from_pretrained(home / name, torch_dtype=torch.float32)
    AutoTokenizer.from_pretrained(home / "model")
    adapted = PeftModel.from_pretrained(load("start"), home / "adapter")
    print(json.dumps([__version__, logits(load("model")), logits(adapted)]))
"""


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A run's folder, and the logits of its model."""
    home = tmp_path_factory.mktemp("run")
    start = ModelSource(str(tiny_model.write(home / "given"))).load()
    trained, held = Adapters(SPEC).split(start.params, jax.random.key(0))
    adapted = Adapters(SPEC).join(jax.tree.map(lambda leaf: leaf + 0.1, trained), held)
    released = merge(adapted)
    outcome = Defended(released, adapted.lora, False)
    export.export_run(home, start, Training(lora=SPEC), start.params, outcome, "float32", adapter=True)
    return home, plain_logits(Model(start.config), released, tuple(IDS))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["4.57", "5"])
def test_the_model_and_its_adapter_compute_the_same_in_transformers_and_peft(left, tmp_path, version):
    python = os.environ.get("IMMUNAX_TORCH")
    if not python:
        pytest.skip("IMMUNAX_TORCH names no Python with torch, transformers and peft")
    if version == "4.57":
        python = _over(Path(python), tmp_path)
    home, expected = left
    command = [python, "-c", textwrap.dedent(READ), home, json.dumps(IDS)]
    found, model, adapted = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found.startswith(version)
    np.testing.assert_allclose(model, expected, atol=1e-4)
    np.testing.assert_allclose(adapted, expected, atol=1e-4)


def _over(python: Path, folder: Path) -> Path:
    """A Python with the packages of another one, but for transformers 4.57 and what it needs."""
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    below = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    above = folder / "venv" / "bin" / "python"
    subprocess.run([above, "-m", "pip", "install", "--quiet", "transformers==4.57.*"], check=True)
    own = subprocess.run([above, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    (Path(own) / "below.pth").write_text(f"{below}\n")
    return above
