import pytest

from immunax.pod.hlo import parse
from immunax.pod.slice_transfers import between_slices
from immunax.pod.traffic import traffic

MESH = {"attack": 2, "data": 2, "fsdp": 4, "tensor": 2}
SLICES = {"attack": 2, "data": 2, "fsdp": 1, "tensor": 1}
ROUTE = (
    '_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target={target},'
    '_xla_megascale_transfer_type="{kind}"'
)
PAIRS = "{{100000,200000},{100001,200001},{300000,400000},{300001,400001}}"


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ('"{1,2,3,4}x{0:7}"', (4, "attack+data")),
        ('"{1,3},{2,4}x{0:7}"', (2, "attack")),
        (PAIRS, (2, "data")),
        (PAIRS.replace("200", "X").replace("300", "200").replace("X", "300"), (2, "attack")),
    ],
)
def test_the_slices_that_a_transfer_joins_are_mapped_to_mesh_axes(target, found):
    assert between_slices(ROUTE.format(target=target, kind="ALL_REDUCE"), SLICES) == ("all-reduce", *found)


def test_a_permutation_names_who_sends_to_whom_and_no_kind():
    target = "{{100004->200000},{100005->200016},{300020->400064}}"
    attributes = ROUTE.format(target=target, kind="").partition(",_xla_megascale_transfer_type")[0]
    assert between_slices(attributes, SLICES) == ("collective-permute", 2, "data")


def test_a_transfer_in_an_unknown_form_is_told():
    untyped = ROUTE.format(target=PAIRS, kind="").partition(",_xla_megascale_transfer_type")[0]
    for attributes in (ROUTE.format(target='"everywhere"', kind="ALL_REDUCE"), untyped):
        with pytest.raises(ValueError, match="unknown form"):
            between_slices(attributes, SLICES)


def test_bytes_to_other_slices_are_counted_apart_from_those_within_one():
    route = ROUTE.format(target='"{1,2,3,4}x{0:7}"', kind="ALL_REDUCE")
    text = f"""HloModule slices

ENTRY %main (x: f32[256]) -> f32[256] {{
  %x = f32[256]{{0}} parameter(0)
  %sum = f32[256]{{0}} all-reduce(%x), channel_id=1, replica_groups={{{{0,2,4,6}},{{1,3,5,7}}}}, to_apply=%add
  %token = token[] after-all()
  %send = (f32[256]{{0}}, u32[], token[]) send(%sum, %token), channel_id=2, is_host_transfer=true, frontend_attributes={{{route}}}
  %send-done = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %recv = (f32[256]{{0}}, u32[], token[]) recv(%token), channel_id=3, is_host_transfer=true, frontend_attributes={{{route}}}
  ROOT %out = f32[256]{{0}} add(%sum, %sum)
}}
"""
    counted = traffic(parse(text), MESH, SLICES)
    # Groups within a slice number its own eight devices: every second one is of the same column of tensor.
    assert dict(counted.sent) == {("all-reduce", "fsdp"): 2 * (3 / 4) * 1024}
    assert dict(counted.sent_over_dcn) == {("all-reduce", "attack+data"): 2 * (3 / 4) * 1024}
    assert counted.over("attack") == {("all-reduce", "attack+data"): 1536}
    assert counted.over("tensor") == {}
