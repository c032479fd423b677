import pytest

from immunax.runtime.places import without_places


def test_paths_of_this_machine_are_their_last_part_wherever_they_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = {"data": {"root": str(tmp_path / "beavertails")}, "paths": [str(tmp_path), "~/keys/a.pem"], "seed": 3}
    assert without_places(config) == {"data": {"root": "beavertails"}, "paths": [tmp_path.name, "a.pem"], "seed": 3}


@pytest.mark.parametrize(
    "text", ["Qwen/Qwen3-0.6B", "outputs/run/model", "/no_think", "/no_think, and say a/b", "/", ""]
)
def test_what_leads_to_no_folder_of_this_machine_stays(text):
    assert without_places({"text": text}) == {"text": text}
