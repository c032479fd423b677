import io
import urllib.error
import urllib.request

import datasets
import pytest
from huggingface_hub import constants

from immunax.data.files import Form
from immunax.data.online import Hub, read_hub
from immunax.runtime.errors import UserError


def answer(monkeypatch, reply):
    """Lets every address answer with bytes, or fail with an error."""

    def urlopen(*_, **__):
        if isinstance(reply, Exception):
            raise reply
        return io.BytesIO(reply)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def test_hub_columns_are_renamed_to_those_of_the_local_file(monkeypatch):
    table = datasets.Dataset.from_list([{"prompt": "one", "category": {"a": True}}])
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, split: asked.append((*names, split)) or table)
    answer(monkeypatch, b"")
    rows = list(read_hub(Hub("owner/name", config="main", split="test", columns={"category": "categories"}), Form()))
    assert rows == [{"prompt": "one", "categories": {"a": True}}]
    assert asked == [("owner/name", "main", "test")]


def test_an_https_address_is_read_by_the_kind_of_its_name(monkeypatch):
    answer(monkeypatch, b"prompt,response\none,007\n")
    assert list(read_hub(Hub("https://example.org/a.csv?raw=1"), Form())) == [{"prompt": "one", "response": "007"}]
    with pytest.raises(UserError, match="unknown kind"):
        list(read_hub(Hub("https://example.org/a.exe"), Form()))


@pytest.mark.parametrize("name", ["owner/name", "https://example.org/a.csv"])
def test_without_the_network_the_error_says_to_set_root(monkeypatch, name):
    answer(monkeypatch, urllib.error.URLError("no route"))
    with pytest.raises(UserError, match=r"cannot get data set .*: set data\.root=DIR to a local copy, or go online"):
        list(read_hub(Hub(name), Form()))


@pytest.mark.parametrize(
    ("reply", "offline"),
    [(b"", False), (urllib.error.HTTPError("", 403, "", None, None), False), (urllib.error.URLError("x"), True)],
)
def test_the_hub_client_goes_offline_only_where_the_hub_cannot_be_reached(monkeypatch, reply, offline):
    seen = []

    def load(*_, **__):
        seen.append((constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE))
        return datasets.Dataset.from_list([{"text": "one"}])

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    answer(monkeypatch, reply)
    list(read_hub(Hub("owner/name"), Form()))
    assert seen == [(offline, offline)]
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
