"""Bytes by layer: of a program written by hand, against XLA's own count, and the least that a step needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrnn.bench import layer_times, traffic
from jaxcrnn.bench.layer_times import Event
from jaxcrnn.model import ModelConfig

HLO = """
HloModule jit_step

%updated (p.0: f32[10,4], p.1: f32[4], p.2: s32[]) -> f32[10,4] {
  %p.0 = f32[10,4]{1,0} parameter(0)
  %p.1 = f32[4]{0} parameter(1)
  %p.2 = s32[] parameter(2)
  %b = f32[1,4]{1,0} bitcast(%p.1)
  %zero = s32[] constant(0)
  ROOT %u = f32[10,4]{1,0} dynamic-update-slice(%p.0, %b, %p.2, %zero)
}

%body (t: (s32[], f32[10,4], f32[4])) -> (s32[], f32[10,4], f32[4]) {
  %t = (s32[], f32[10,4]{1,0}, f32[4]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %all = f32[10,4]{1,0} get-tuple-element(%t), index=1
  %row = f32[4]{0} get-tuple-element(%t), index=2
  %f = f32[10,4]{1,0} fusion(%all, %row, %i), kind=kLoop, calls=%updated, metadata={op_name="jit(step)/transpose(jvp(CRNN))/lstm0/while/body/dynamic_update_slice"}
  ROOT %out = (s32[], f32[10,4]{1,0}, f32[4]{0}) tuple(%i, %f, %row)
}

%condition (t.1: (s32[], f32[10,4], f32[4])) -> pred[] {
  %t.1 = (s32[], f32[10,4]{1,0}, f32[4]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

ENTRY %main (x: bf16[2,3], w: f32[10,4], r: f32[4]) -> bf16[2,3] {
  %x = bf16[2,3]{1,0} parameter(0)
  %w = f32[10,4]{1,0} parameter(1)
  %r = f32[4]{0} parameter(2)
  %c = bf16[2,3]{1,0:T(8,128)S(1)} convolution(%x, %x), metadata={op_name="jit(step)/jvp(CRNN)/backbone/conv1/conv_general_dilated"}
  %n = bf16[2,3]{1,0} multiply(%c, %x), metadata={op_name="jit(step)/jvp(CRNN)/backbone/norm1/mul"}
  %start = s32[] constant(0)
  %tuple = (s32[], f32[10,4]{1,0}, f32[4]{0}) tuple(%start, %w, %r)
  %loop = (s32[], f32[10,4]{1,0}, f32[4]{0}) while(%tuple), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  ROOT %s = bf16[2,3]{1,0} add(%n, %n), metadata={op_name="jit(step)/optimizer/add"}
}
"""  # noqa: E501


def test_bytes_are_counted_by_layer():
    assert traffic.by_layer(HLO) == {
        "convolutions": (24, 0),  # reads x twice, and its result stays on the chip
        "normalization, ReLU, pooling, masks": (24, 0),  # reads x, writes n
        "LSTMs": (0, 10 * (16 + 4 + 16)),  # ten times: a row and its number read, a row written in place
        "optimizer and centers": (36, 0),
    }


def test_operations_are_counted_by_layer():
    counts = traffic.operations(HLO)
    assert counts["convolutions"] == (1, 0)
    assert counts["LSTMs"] == (0, 10)  # one in a loop
    assert counts["optimizer and centers"] == (1, 0)


FUSED = """
%frame (p.0: f32[9,4,10], p.1: s32[]) -> f32[10] {
  %p.0 = f32[9,4,10]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %four = f32[1,4,10]{2,1,0} dynamic-slice(%p.0, %p.1, %zero, %zero), dynamic_slice_sizes={1,4,10}
  %flat = f32[4,10]{1,0} bitcast(%four)
  %second = f32[1,10]{1,0} slice(%flat), slice={[1:2], [0:10]}
  ROOT %row = f32[10]{0} bitcast(%second)
}

%added (p.2: f32[9,4,10], p.3: s32[3,1], p.4: f32[3,4,10]) -> f32[9,4,10] {
  %p.2 = f32[9,4,10]{2,1,0} parameter(0)
  %p.3 = s32[3,1]{1,0} parameter(1)
  %p.4 = f32[3,4,10]{2,1,0} parameter(2)
  ROOT %sum = f32[9,4,10]{2,1,0} scatter(%p.2, %p.3, %p.4), to_apply=%add
}

ENTRY %main (x: f32[9,4,10], i: s32[], j: s32[3,1], u: f32[3,4,10]) -> f32[9,4,10] {
  %x = f32[9,4,10]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %j = s32[3,1]{1,0} parameter(2)
  %u = f32[3,4,10]{2,1,0} parameter(3)
  %one = f32[10]{0} fusion(%x, %i), kind=kLoop, calls=%frame
  ROOT %new = f32[9,4,10]{2,1,0} fusion(%x, %j, %u), kind=kInput, calls=%added
}
"""


def test_of_a_slice_and_of_a_scatter_only_what_they_touch_counts():
    """A row of ten, of a slice of four, and its number; three updates, read with their places and written in place."""
    assert sum(map(sum, traffic.by_layer(FUSED).values())) == (40 + 4 + 40) + (12 + 480 + 480)


def test_bytes_agree_with_the_compilers_own_count():
    """Without loops, which its analysis counts once, both count the same."""

    def step(x, w):
        with jax.named_scope("loss"):
            return jnp.tanh(x @ w).sum() + (x[:, :7] ** 2).mean()

    x, w = jnp.ones((64, 96)), jnp.ones((96, 32))
    program = jax.jit(jax.grad(step, argnums=(0, 1))).lower(x, w).compile()
    ours = sum(map(sum, traffic.by_layer(program.as_text()).values()))
    assert ours == pytest.approx(program.cost_analysis()["bytes accessed"], rel=0.02)


def test_layers_of_a_backbone_alone_are_found():
    assert traffic.layer_of("jit(total)/jvp(Backbone)/norm2/mul") == ("normalization, ReLU, pooling, masks", False)
    assert traffic.layer_of("jit(total)/transpose(jvp(Backbone))/conv1/dot_general") == ("convolutions", True)
    assert traffic.layer_of("state.opt_state[1][0].mu['backbone']['conv3']['kernel']")[0] == "optimizer and centers"


def test_the_least_traffic_of_a_small_model():
    """``tiny`` on one line of 32 x 64 px, H=4 and 5 classes: by hand."""
    need = traffic.least(ModelConfig("tiny", hidden=4, num_classes=5), 1, 64)
    pixels, first, second, last = 32 * 64, 8 * 16 * 32, 16 * 8 * 16, 32 * 1 * 16
    assert need["convolutions"].forward == 4 * (pixels + 2 * first + 2 * second + last)
    assert need["convolutions"].backward == 4 * (pixels + 2 * first + 2 * (first + second) + 2 * (second + last))
    assert need["linear head"] == (4 * 16 * (8 + 5), 2 * 4 * 16 * (8 + 5))
    half = traffic.least(ModelConfig("tiny", hidden=4, num_classes=5, dtype="bfloat16"), 1, 64)
    assert half["convolutions"].forward == need["convolutions"].forward // 2
    assert half["loss"] == need["loss"]
    assert set(traffic.least(ModelConfig("tiny", head="fused", num_classes=5), 1, 64)) == {"convolutions"}


ASYNCHRONOUS = """
%less (t: (s32[], f32[100])) -> pred[] {
  %t = (s32[], f32[100]{0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %last = s32[]{:T(128)} constant(7)
  ROOT %lt = pred[]{:T(512)} compare(%i, %last), direction=LT
}

%round (t.1: (s32[], f32[100])) -> (s32[], f32[100]) {
  %t.1 = (s32[], f32[100]{0}) parameter(0)
  %x.1 = f32[100]{0} get-tuple-element(%t.1), index=1
  %start = (f32[100]{0:T(256)S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%x.1)
  %near = f32[100]{0:T(256)S(1)} copy-done(%start)
  %begin = ((f32[100]{0}), f32[10]{0:T(128)S(1)}, s32[]) slice-start(%x.1), slice={[0:10]}
  %piece = f32[10]{0:T(128)S(1)} slice-done(%begin)
  ROOT %out.1 = (s32[], f32[100]{0}) tuple(%x.1, %x.1)
}

ENTRY %main (x: f32[100]) -> f32[100] {
  %x = f32[100]{0} parameter(0)
  %zero = s32[] constant(0)
  %both = (s32[], f32[100]{0}) tuple(%zero, %x)
  %loop = (s32[], f32[100]{0}) while(%both), condition=%less, body=%round
  %sum = (f32[100]{0}, f32[100]{0}) all-reduce-start(%x)
  ROOT %reduced = f32[100]{0} all-reduce-done(%sum)
}
"""


def test_moves_beside_other_work_count_once():
    """To the chip, 100 and 10 numbers are read in each of 7 rounds; one array is read and written for all devices."""
    assert sum(map(sum, traffic.by_layer(ASYNCHRONOUS).values())) == 7 * (400 + 40) + 2 * 400


def test_operations_within_others_count_once():
    events = [
        Event(0, 100, "while"),
        Event(10, 30, "a"),
        Event(12, 20, "inner"),
        Event(40, 60, "b"),
        Event(200, 210, "c"),
    ]
    times = {event.operation: time for event, time in layer_times.own_times(events)}
    assert times == {"while": 60, "a": 12, "inner": 8, "b": 20, "c": 10}
    assert layer_times.idle(events) == 100
    assert layer_times.idle([]) == 0


def test_a_trace_of_this_device_is_added_up_by_layer():
    def step(x):
        with jax.named_scope("optimizer"):
            x = jnp.sin(x @ x)
        with jax.named_scope("loss"):
            return jnp.cos(x @ x)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32))
    program = jax.jit(step).lower(x).compile()
    times = layer_times.by_layer(lambda: jax.block_until_ready(program(x)), program.as_text(), repeats=2)
    assert times["optimizer and centers"].forward > 0
    assert times["loss"].forward > 0
    assert all(layer.backward == 0 for layer in times.values())
