"""The view of a GPU from a machine without one: what is read off a compiled program."""

import importlib.util

import pytest
from accelerated import h200
from accelerated.view import Turned, custom_calls

from immunax.pod import hlo
from immunax.pod.traffic import traffic

LOOP = """
HloModule program

%body (state: (s32[], f32[256])) -> (s32[], f32[256]) {
  %state = (s32[], f32[256]{0}) parameter(0)
  %count = s32[] get-tuple-element((s32[], f32[256]{0}) %state), index=0
  %values = f32[256]{0} get-tuple-element((s32[], f32[256]{0}) %state), index=1
  %made = f32[256]{0} custom-call(f32[256]{0} %values), custom_call_target="__cudnn$fmhaSoftmax"
  ROOT %next = (s32[], f32[256]{0}) tuple(s32[] %count, f32[256]{0} %made)
}

%condition (state: (s32[], f32[256])) -> pred[] {
  %state = (s32[], f32[256]{0}) parameter(0)
  %count = s32[] get-tuple-element((s32[], f32[256]{0}) %state), index=0
  ROOT %done = pred[] compare(s32[] %count, s32[] %count), direction=LT
}

ENTRY %main (count: s32[], values: f32[256]) -> (s32[], f32[256]) {
  %count = s32[] parameter(0)
  %values = f32[256]{0} parameter(1)
  %laid = f32[256]{0} custom-call(f32[256]{0} %values), custom_call_target="AllocateBuffer"
  %state = (s32[], f32[256]{0}) tuple(s32[] %count, f32[256]{0} %values)
  ROOT %end = (s32[], f32[256]{0}) while((s32[], f32[256]{0}) %state), condition=%condition, body=%bodyKNOWN
}
"""


def program(turns, known=""):
    parsed = hlo.parse(LOOP.replace("KNOWN", known))
    return Turned(parsed.computations, parsed.entry, turns)


def test_calls_and_bytes_of_a_loop_count_as_often_as_the_case_says_it_turns():
    assert custom_calls(program(64)) == {"__cudnn$fmhaSoftmax": 64}
    once, often = (traffic(program(turns), {"data": 1}).hbm_bytes for turns in (1, 64))
    assert often - once == 63 * 2 * 4 * 256


def test_a_loop_whose_turns_xla_knows_keeps_them():
    known = ', backend_config={"known_trip_count":{"n":"5"}}'
    assert custom_calls(program(64, known)) == {"__cudnn$fmhaSoftmax": 5}


def test_the_chip_is_described_in_one_text():
    text = h200.description()
    assert "core_count: 132 " in text
    assert 'device_description_str: "NVIDIA H200"' in text
    assert text.count("{") == text.count("}") == 3


def test_an_environment_without_the_compiler_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="run: uv sync --extra cuda") as refused:
        h200.check_compiler()
    assert "\n" not in str(refused.value)
