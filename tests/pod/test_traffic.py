import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from immunax.pod.hlo import parse
from immunax.pod.replica_groups import group
from immunax.pod.traffic import traffic
from immunax.runtime.mesh import MeshSpec, build

MESH = build(MeshSpec(data=2, fsdp=2, tensor=2))
SHAPE = dict(MESH.shape)


def compiled(function, *inputs, out):
    specs = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(MESH, spec)) for shape, spec in inputs]
    return parse(jax.jit(function, out_shardings=NamedSharding(MESH, out)).lower(*specs).compile().as_text())


def test_gathers_and_reductions_are_counted_on_their_axes():
    gathered = traffic(compiled(lambda x: x, ((8, 16), P("fsdp")), out=P()), SHAPE)
    # Each device has half of 8 x 16 float32 and sends it to the other device along fsdp.
    assert dict(gathered.sent) == {("all-gather", "fsdp"): 4 * 16 * 4}
    assert dict(gathered.gathered) == {"f32": 4 * 16 * 4}
    inputs = ((8, 16), P(None, "tensor")), ((16, 4), P("tensor"))
    reduced = traffic(compiled(jnp.matmul, *inputs, out=P()), SHAPE)
    assert dict(reduced.sent) == {("all-reduce", "tensor"): 2 * (1 / 2) * 8 * 4 * 4}
    assert reduced.flops == 2 * 8 * 8 * 4
    both = traffic(compiled(lambda x: x.sum(axis=0), ((8, 16), P(("data", "fsdp"))), out=P()), SHAPE)
    assert dict(both.sent) == {("all-reduce", "data+fsdp"): 2 * (3 / 4) * 16 * 4}


@pytest.mark.parametrize("steps", [5, 12])
def test_a_loops_body_counts_as_often_as_it_runs(steps):
    specs = P(None, "tensor"), P()

    def run(weights, x):
        def step(carry, weight):
            part = jax.lax.dynamic_slice_in_dim(carry, 8 * jax.lax.axis_index("tensor"), 8, 1)
            return jnp.tanh(jax.lax.psum(part @ weight, "tensor")), None

        return jax.lax.scan(step, x, weights)[0]

    sharded = jax.shard_map(run, mesh=MESH, in_specs=specs, out_specs=P())
    counted = traffic(compiled(sharded, ((steps, 16, 16), specs[0]), ((8, 16), specs[1]), out=P()), SHAPE)
    assert counted.flops == steps * 2 * 8 * 8 * 16
    assert dict(counted.sent) == {("all-reduce", "tensor"): steps * 8 * 16 * 4}
    # A step reads its own weights and not those of all steps, which would be quadratic.
    each = counted.hbm_bytes / steps
    assert 8 * 16 * 4 < each < 16 * 8 * 16 * 4


LOOP = """HloModule loop

%body (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %p = (u32[]{:T(128)}, f32[4]{0:T(128)}) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %two = u32[] constant(2)
  %next = u32[] add(%i, %two)
  %sent = f32[4]{0} collective-permute(%x), channel_id=1, source_target_pairs={{0,1},{1,0},{2,3},{3,2}}
  %kept = f32[4]{0:T(128)S(1)} copy(%sent)
  ROOT %out = (u32[], f32[4]) tuple(%next, %sent)
}

%condition (p.1: (u32[], f32[4])) -> pred[] {
  %p.1 = (u32[], f32[4]) parameter(0)
  %bound = u32[] constant(9)
  %j = u32[] get-tuple-element(%p.1), index=0
  ROOT %less = pred[] compare(%j, %bound), direction=LT
}

ENTRY %main (y: f32[4]) -> (u32[], f32[4]) {
  %y = f32[4]{0} parameter(0)
  %zero = u32[] constant(1)
  %start = (u32[], /*index=1*/f32[4]{0}) tuple(%zero, %y)
  ROOT %loop = (u32[], f32[4]) while(%start), condition=%condition, body=%body
}
"""


def test_a_loop_without_a_known_count_is_counted_by_start_step_and_bound():
    counted = traffic(parse(LOOP), {"data": 2, "tensor": 2})
    # 1, 3, 5 and 7 are below 9.
    assert dict(counted.sent) == {("collective-permute", "tensor"): 4 * 16}
    # The permutation reads and writes, the copy reads; what it writes stays on the chip. The counter is 12 bytes.
    assert counted.hbm_bytes == 4 * (16 + 16 + 16 + 12)


@pytest.mark.parametrize(
    ("text", "members", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2, "tensor"),
        ("replica_groups={{0,2,4,6},{1,3,5,7}}", 4, "data+fsdp"),
        ("replica_groups=[4,2]<=[8], use_global_device_ids=true", 2, "tensor"),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2, "data"),
        ("replica_groups=[2,4]<=[2,2,2]T(1,0,2), dimensions={0}", 4, "data+tensor"),
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}, dimensions={0}", 2, "tensor"),
        ("replica_groups=mesh['a'=4,'b'=2] {'a':(2)2}", 2, "fsdp"),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}, dimensions={0}", 2, "tensor"),
        ("replica_groups={}", 8, "data+fsdp+tensor"),
        ("source_target_pairs={{0,4},{4,0},{1,5},{5,1}}", 2, "data"),
    ],
)
def test_groups_are_mapped_to_mesh_axes(text, members, axes):
    assert group(text, SHAPE) == (members, axes)


def test_groups_in_an_unknown_form_are_told():
    with pytest.raises(ValueError, match="unknown form"):
        group("replica_groups=spiral(8)", SHAPE)


def test_a_tpus_reduce_scatter_and_split_collectives_count_once():
    text = """HloModule tpu

%pieces (a: f32[8], b: f32[2]) -> f32[16] {
  %a = f32[8]{0} parameter(0)
  %b = f32[2]{0} parameter(1)
  ROOT %g = f32[16]{0} all-gather(%a), channel_id=7, replica_groups=[4,2]<=[8], dimensions={0}
}

%scatter (c: f32[8]) -> f32[4] {
  %c = f32[8]{0} parameter(0)
  %r = f32[8]{0} all-reduce(%c), channel_id=9, replica_groups=[4,2]<=[8], to_apply=%add
  %k = s32[] constant(0)
  ROOT %d = f32[4]{0} dynamic-slice(%r, %k), dynamic_slice_sizes={4}
}

ENTRY %main (x: f32[8], y: f32[2]) -> f32[4] {
  %x = f32[8]{0} parameter(0)
  %y = f32[2]{0} parameter(1)
  %async-collective-start.1 = f32[16]{0} fusion(%x, %y), kind=kCustom, calls=%pieces
  %f = f32[16]{0} fusion(%x, %y), kind=kCustom, calls=%pieces
  %async-collective-done.1 = f32[16]{0} fusion(%x, %y), kind=kCustom, calls=%pieces
  ROOT %s = f32[4]{0} fusion(%x), kind=kCustom, calls=%scatter
}
"""
    _check_pieces(traffic(parse(text), SHAPE))
    # One that is whole may have the channel of one in pieces: of a turn of a loop that is laid out apart.
    _check_pieces(traffic(parse(text.replace("channel_id=9", "channel_id=7")), SHAPE))


def _check_pieces(counted):
    assert dict(counted.sent) == {
        ("all-gather", "tensor"): 8 * 4,
        ("reduce-scatter", "tensor"): 8 * 4 / 2,
    }
    # What lies in pieces goes on its way beside other work; what is one instruction is waited for.
    assert counted.waited == 8 * 4 / 2


def test_a_batched_product_written_as_a_convolution_counts_no_padding():
    text = """HloModule conv

ENTRY %main (x: bf16[8,3,4], y: bf16[8,4,5]) -> bf16[8,3,5] {
  %x = bf16[8,3,4]{2,1,0} parameter(0)
  %y = bf16[8,4,5]{2,1,0} parameter(1)
  ROOT %c = bf16[8,3,5]{2,1,0} convolution(%x, %y), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf
}
"""
    counted = traffic(parse(text), SHAPE)
    assert counted.flops == 2 * 8 * 3 * 4 * 5
    assert counted.hbm_bytes == 2 * (np.prod((8, 3, 4)) + np.prod((8, 4, 5)) + np.prod((8, 3, 5)))


def test_a_fusion_pays_for_what_it_slices_however_deep_and_not_for_what_it_hands_on():
    text = """HloModule async

%slice (s: bf16[32,8], i: s32[]) -> bf16[8] {
  %s = bf16[32,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %d = bf16[1,8]{1,0} dynamic-slice(%s, %i), dynamic_slice_sizes={1,8}
  ROOT %b = bf16[8]{0} bitcast(%d)
}

%update (u: f32[32,8], v: f32[1,8], k: s32[]) -> f32[32,8] {
  %u = f32[32,8]{1,0} parameter(0)
  %v = f32[1,8]{1,0} parameter(1)
  %k = s32[] parameter(2)
  ROOT %w = f32[32,8]{1,0} dynamic-update-slice(%u, %v, %k, %k)
}

%around (p: bf16[32,8], q: s32[], r: bf16[64], t: f32[32,8], z: f32[1,8]) -> (bf16[8], bf16[64], f32[32,8]) {
  %p = bf16[32,8]{1,0} parameter(0)
  %q = s32[]{:S(6)} parameter(1)
  %r = bf16[64]{0} parameter(2)
  %t = f32[32,8]{1,0} parameter(3)
  %z = f32[1,8]{1,0} parameter(4)
  %one = bf16[8]{0} fusion(%p, %q), kind=kLoop, calls=%slice
  %half = bf16[8]{0} negate(%one)
  %new = f32[32,8]{1,0} fusion(%t, %z, %q), kind=kLoop, calls=%update
  ROOT %all = (bf16[8]{0}, bf16[64]{0}, f32[32,8]{1,0}) tuple(%half, %r, %new)
}

ENTRY %main (x: bf16[32,8], j: s32[], y: bf16[64], o: f32[32,8], n: f32[1,8]) -> (bf16[8], bf16[64], f32[32,8]) {
  %x = bf16[32,8]{1,0} parameter(0)
  %j = s32[]{:S(6)} parameter(1)
  %y = bf16[64]{0} parameter(2)
  %o = f32[32,8]{1,0} parameter(3)
  %n = f32[1,8]{1,0} parameter(4)
  ROOT %f = (bf16[8]{0}, bf16[64]{0}, f32[32,8]{1,0}) fusion(%x, %j, %y, %o, %n), kind=kOutput, calls=%around
}
"""
    sliced, updated = 8 * 2, 8 * 4
    # A row is read and a row is written; of what is updated, the new row is read and written.
    assert traffic(parse(text), SHAPE).hbm_bytes == 2 * sliced + 2 * updated


def test_a_collective_that_begins_before_a_loop_and_ends_behind_it_is_sent_once():
    text = """HloModule around

%piece (a: f32[8], r: f32[16], x: f32[4,4]) -> (f32[4,4], f32[8], f32[16]) {
  %a = f32[8]{0} parameter(0)
  %r = f32[16]{0} parameter(1)
  %x = f32[4,4]{1,0} parameter(2)
  %y = f32[4,4]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %g = f32[16]{0} all-gather(%a), channel_id=3, replica_groups=[4,2]<=[8], dimensions={0}
  ROOT %t = (f32[4,4]{1,0}, f32[8]{0}, f32[16]{0}) tuple(%y, %a, %g)
}

%last (b: f32[8], s: f32[16]) -> f32[16] {
  %b = f32[8]{0} parameter(0)
  %s = f32[16]{0} parameter(1)
  ROOT %h = f32[16]{0} all-gather(%b), channel_id=3, replica_groups=[4,2]<=[8], dimensions={0}
}

%first (x.1: f32[8]) -> f32[16] {
  %x.1 = f32[8]{0} parameter(0)
  ROOT %h.1 = f32[16]{0} all-gather(%x.1), channel_id=3, replica_groups=[4,2]<=[8], dimensions={0}
}

%body (p: (s32[], f32[4,4], f32[8], f32[16])) -> (s32[], f32[4,4], f32[8], f32[16]) {
  %p = (s32[]{:S(6)}, f32[4,4]{1,0:S(1)}, f32[8]{0}, f32[16]{0}) parameter(0)
  %i = s32[]{:S(6)} get-tuple-element(%p), index=0
  %m = f32[4,4]{1,0:S(1)} get-tuple-element(%p), index=1
  %c = f32[8]{0} get-tuple-element(%p), index=2
  %d = f32[16]{0} get-tuple-element(%p), index=3
  %f = (f32[4,4]{1,0:S(1)}, f32[8]{0}, f32[16]{0}) fusion(%c, %d, %m), kind=kOutput, calls=%piece
  %n = f32[4,4]{1,0:S(1)} get-tuple-element(%f), index=0
  %o = f32[8]{0} get-tuple-element(%f), index=1
  %q = f32[16]{0} get-tuple-element(%f), index=2
  ROOT %u = (s32[]{:S(6)}, f32[4,4]{1,0:S(1)}, f32[8]{0}, f32[16]{0}) tuple(%i, %n, %o, %q)
}

%condition (v: (s32[], f32[4,4], f32[8], f32[16])) -> pred[] {
  %v = (s32[]{:S(6)}, f32[4,4]{1,0:S(1)}, f32[8]{0}, f32[16]{0}) parameter(0)
  ROOT %w = pred[]{:S(6)} constant(true)
}

ENTRY %main (z: (s32[], f32[4,4], f32[8], f32[16])) -> f32[16] {
  %z = (s32[]{:S(6)}, f32[4,4]{1,0:S(1)}, f32[8]{0}, f32[16]{0}) parameter(0)
  %y.1 = f32[8]{0:S(1)} get-tuple-element(%z), index=2
  %async-collective-start = f32[16]{0:S(1)} fusion(%y.1), kind=kCustom, calls=%first
  %l = (s32[]{:S(6)}, f32[4,4]{1,0:S(1)}, f32[8]{0}, f32[16]{0}) while(%z), TRIPS
  %j = f32[8]{0} get-tuple-element(%l), index=2
  %k = f32[16]{0} get-tuple-element(%l), index=3
  ROOT %e = f32[16]{0} fusion(%j, %k), kind=kLoop, calls=%last
}
"""
    trips = 'condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}'
    counted = traffic(parse(text.replace("TRIPS", trips)), SHAPE)
    assert dict(counted.sent) == {("all-gather", "tensor"): 8 * 4}
    assert counted.waited == 0
    assert counted.flops == 5 * 2 * 4 * 4 * 4
    # Its result is written once too, by the last piece, which reads what it sends.
    assert counted.hbm_bytes == 8 * 4 + 16 * 4


def test_a_turn_of_a_loop_that_is_laid_out_apart_counts_beside_the_others():
    text = """HloModule peeled

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %r = f32[8]{0} all-reduce(%x), channel_id=5, replica_groups=[4,2]<=[8], to_apply=%add
  ROOT %t = (s32[], f32[8]{0}) tuple(%i, %r)
}

%condition (q: (s32[], f32[8])) -> pred[] {
  %q = (s32[], f32[8]{0}) parameter(0)
  ROOT %w = pred[] constant(true)
}

ENTRY %main (y: f32[8], k: s32[]) -> (s32[], f32[8]) {
  %y = f32[8]{0} parameter(0)
  %k = s32[] parameter(1)
  %s = f32[8]{0} all-reduce(%y), channel_id=5, replica_groups=[4,2]<=[8], to_apply=%add
  %u = (s32[], f32[8]{0}) tuple(%k, %s)
  ROOT %l = (s32[], f32[8]{0}) while(%u), TRIPS
}
"""
    trips = 'condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    counted = traffic(parse(text.replace("TRIPS", trips)), SHAPE)
    assert dict(counted.sent) == {("all-reduce", "tensor"): (1 + 3) * 8 * 4}
    assert counted.waited == (1 + 3) * 8 * 4


def test_a_kernel_whose_attributes_go_on_in_further_lines_is_one_instruction():
    text = """HloModule m

ENTRY %main (q: bf16[8,16]) -> bf16[8,16] {
  %q = bf16[8,16]{1,0} parameter(0)
  %kernel = (bf16[8,16]{1,0}, f32[8]{0}) custom-call(%q), custom_call_target="kernel", frontend_attributes={k_metadata={
"xprof_metadata":"{\\"block_q\\": 256}"
}}, metadata={op_name="attention"}
  ROOT %out = bf16[8,16]{1,0} get-tuple-element(%kernel), index=0
}
"""
    program = parse(text)
    assert list(program.computations["main"]) == ["q", "kernel", "out"]
    assert traffic(program, SHAPE).hbm_bytes == 2 * 8 * 16 * 2 + 8 * 4


KERNELS = """HloModule kernels

%body (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %p = (u32[], f32[4]{0}) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %one = u32[] constant(1)
  %next = u32[] add(%i, %one)
  %splash_mha_fwd.7 = f32[4]{0} custom-call(%x), custom_call_target="tpu_custom_call"
  %joined.2 = f32[4]{0} custom-call(%splash_mha_fwd.7), custom_call_target="ConcatBitcast"
  ROOT %t = (u32[], f32[4]{0}) tuple(%next, %joined.2)
}

%cond (c: (u32[], f32[4])) -> pred[] {
  %c = (u32[], f32[4]{0}) parameter(0)
  %j = u32[] get-tuple-element(%c), index=0
  %n = u32[] constant(3)
  ROOT %less = pred[] compare(%j, %n), direction=LT
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x0 = f32[4]{0} parameter(0)
  %zero = u32[] constant(0)
  %splash_mha_fwd = f32[4]{0} custom-call(%x0), custom_call_target="tpu_custom_call"
  %cudnn-fmha.1 = f32[4]{0} custom-call(%splash_mha_fwd), custom_call_target="__cudnn$fmhaSoftmax"
  %begun = (u32[], f32[4]{0}) tuple(%zero, %cudnn-fmha.1)
  %loop = (u32[], f32[4]{0}) while(%begun), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = f32[4]{0} get-tuple-element(%loop), index=1
}
"""


def test_calls_of_kernels_are_counted_by_name_and_other_custom_calls_are_not():
    assert dict(traffic(parse(KERNELS), SHAPE).kernels) == {"splash_mha_fwd": 1 + 3, "cudnn-fmha": 1}
