import json

import buckets
import pytest

from immunax.data.sources import Source
from immunax.runtime import bucket
from immunax.runtime.errors import UserError

ROWS = [{"prompt": f"Question {number}?", "response": f"Answer {number}."} for number in range(4)]


@pytest.fixture
def folder(bucket_server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    address = f"{buckets.made(bucket_server)}/data"
    bucket.put_bytes("\n".join(map(json.dumps, ROWS)).encode(), f"{address}/rows.jsonl")
    return address


@pytest.mark.parametrize("below_root", [True, False])
def test_rows_of_a_bucket_are_read_as_those_of_a_disk_and_anew_where_they_change(folder, below_root):
    source = Source("rows.jsonl" if below_root else f"{folder}/rows.jsonl", {"train": 1.0})
    root = folder if below_root else None
    assert [dialog.answer for dialog in source.dialogs(root)] == [row["response"] for row in ROWS]
    bucket.put_bytes(json.dumps({"prompt": "Other?", "response": "New."}).encode(), f"{folder}/rows.jsonl")
    assert [dialog.answer for dialog in source.dialogs(root)] == ["New."]


def test_a_file_that_is_not_in_the_bucket_is_named_by_its_address(folder):
    with pytest.raises(UserError, match=f"no data file {folder}/none.jsonl"):
        Source("none.jsonl", {"train": 1.0}).dialogs(folder)
    with pytest.raises(UserError, match="expected gs://BUCKET/FOLDER"):
        Source("rows.jsonl", {"train": 1.0}).dialogs("gs:/b/data")
