import pytest

from immunax.runtime import code
from immunax.runtime.errors import UserError
from immunax.runtime.manifest import read, write_manifest
from immunax.runtime.user_config import UserConfig
from immunax.stages.resume import check_same_inputs, check_same_run

CONFIG = UserConfig({"run": "one", "seed": 0, "outputs": "here", "defense": {"alpha": 1.0}})


def test_a_new_folder_and_the_same_configuration_are_let_through(tmp_path):
    check_same_run(tmp_path, CONFIG)
    write_manifest(tmp_path, CONFIG.plain, {})
    check_same_run(tmp_path, CONFIG)
    check_same_run(tmp_path, CONFIG.with_values({"outputs": "there"}))


def test_another_configuration_is_refused_by_the_name_of_what_differs(tmp_path):
    write_manifest(tmp_path, CONFIG.plain, {})
    with pytest.raises(UserError, match=r"defense\.alpha=1\.0, not 2\.0"):
        check_same_run(tmp_path, CONFIG.with_values({"defense.alpha": 2.0}))


def test_a_run_that_goes_on_with_other_code_is_told_of_and_its_manifest_has_both(tmp_path, monkeypatch, capsys):
    write_manifest(tmp_path, CONFIG.plain, {})
    check_same_run(tmp_path, CONFIG)
    assert capsys.readouterr().err == ""
    (first,) = read(tmp_path)["code"]
    monkeypatch.setattr(code, "package_digest", lambda: "other")
    check_same_run(tmp_path, CONFIG)
    assert "began with other code than this" in capsys.readouterr().err
    for _ in range(2):
        write_manifest(tmp_path, CONFIG.plain, {}, {"ended": "now"})
        assert read(tmp_path)["code"] == [first, "other"]
    check_same_run(tmp_path, CONFIG)
    assert capsys.readouterr().err == ""


def test_a_manifest_that_cannot_be_read_is_told_in_one_line(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json: not readable as JSON"):
        check_same_run(tmp_path, CONFIG)


def test_the_same_inputs_are_let_through_and_so_are_files_that_the_run_has_made(tmp_path):
    inputs = {"data": "a" * 64, "model.safetensors": "b" * 64}
    check_same_inputs(tmp_path, inputs)
    write_manifest(tmp_path, CONFIG.plain, {**inputs, "model/model.safetensors": "c" * 64})
    check_same_inputs(tmp_path, inputs)


@pytest.mark.parametrize(
    ("name", "was"),
    [("data", "aaaaaaaaaaaa"), ("model.safetensors", "bbbbbbbbbbbb"), ("model.safetensors.index.json", "none")],
)
def test_other_contents_under_the_same_path_are_refused_by_name(tmp_path, name, was):
    inputs = {"data": "a" * 64, "model.safetensors": "b" * 64}
    write_manifest(tmp_path, CONFIG.plain, inputs)
    with pytest.raises(UserError, match=rf"began with another '{name}' \(SHA-256 {was}, now dddddddddddd\)") as caught:
        check_same_inputs(tmp_path, {**inputs, name: "d" * 64})
    assert "\n" not in str(caught.value)


def test_an_input_that_is_gone_is_refused_by_name(tmp_path):
    inputs = {"data": "a" * 64, "generation_config.json": "b" * 64}
    write_manifest(tmp_path, CONFIG.plain, {**inputs, "model/model.safetensors": "c" * 64})
    with pytest.raises(UserError, match=r"another 'generation_config.json' \(SHA-256 bbbbbbbbbbbb, now none\)"):
        check_same_inputs(tmp_path, {"data": "a" * 64})
