import json
import sys

import jax

from immunax.runtime.manifest import now, write_manifest


def test_the_manifest_says_what_was_run_on_what(tmp_path):
    config = {"seed": 3, "name": "run-3"}
    path = write_manifest(tmp_path, config, {"data": "ab"}, {"started": now(), "seeds": [3]})
    record = json.loads(path.read_text())
    assert record["config"] == {"seed": 3, "name": "run-3"}
    assert record["digests"] == {"data": "ab"}
    assert record["versions"]["jax"] == jax.__version__
    assert set(record["versions"]) >= {"python", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "immunax"}
    assert record["platform"]["devices"] == 8
    assert record["argv"] == sys.argv
    assert record["seeds"] == [3]
    assert record["started"] <= record["written"]


def test_a_checkout_names_its_commit_and_an_installed_package_none(tmp_path, monkeypatch):
    from immunax.runtime import manifest

    answers = {"rev-parse": "abc", "ls-files": "__init__.py", "status": " M file"}
    monkeypatch.setattr(manifest, "_ask_git", lambda _, command, *__: answers[command])
    assert manifest._git(tmp_path) == {"commit": "abc", "dirty": True}
    answers["status"] = ""
    assert manifest._git(tmp_path) == {"commit": "abc", "dirty": False}
    answers["ls-files"] = None
    assert manifest._git(tmp_path) is None
