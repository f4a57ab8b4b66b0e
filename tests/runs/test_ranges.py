"""Every numeric key has a range, stated in its help and checked wherever the key is set."""

import dataclasses
import math
import re
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrnn import UserError, _ranges, optim
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.cli import _keys
from jaxcrnn.optim import OptimConfig
from jaxcrnn.runs import config as configs

SECTIONS = _keys.sections()


def with_value(section, key, value):
    """The value, in a tuple if the key has several."""
    default = next(f.default for f in dataclasses.fields(section) if f.name == key)
    return (value,) if isinstance(default, tuple) else value


def unranged(section):
    """The fields that are numbers, or tuples of numbers, without a range."""
    hints = get_type_hints(section)
    numbers = [name for name, hint in hints.items() if {hint, *get_args(hint)} & {int, float}]
    return sorted(set(numbers) - _ranges.ranges(section).keys())


def outside(section, key):
    """Values that a key must refuse: not finite, -1 unless allowed, and just beyond each bound."""
    allowed, kind = _ranges.ranges(section)[key]
    if kind is float:
        yield from (math.nan, math.inf, -math.inf, 1e39)
    if allowed.least is not None:
        yield allowed.least if allowed.above else allowed.least - 1
        if kind is float and not allowed.above:
            yield float(np.nextafter(np.float32(allowed.least), np.float32(-1e9)))
        yield min(-1, allowed.least - 1)
    if allowed.most is not None:
        yield allowed.most if allowed.below else allowed.most + 1
        if kind is float and not allowed.below:
            yield float(np.nextafter(np.float32(allowed.most), np.float32(1e9)))
    if kind is int:
        yield allowed.largest + 1


@pytest.mark.parametrize("name", SECTIONS)
def test_every_number_has_a_documented_range(name):
    section = SECTIONS[name]
    assert unranged(section) == [], "annotate these keys with a range of jaxcrnn._ranges"
    texts = _keys.attributes(section)
    for key, (allowed, _) in _ranges.ranges(section).items():
        missing = [part for part in str(allowed).split(", ") if part not in texts[key]]
        assert not missing, f"{name}.{key}: the help does not state {allowed}"


@pytest.mark.parametrize("name", SECTIONS)
def test_values_out_of_range_are_rejected(name):
    section = SECTIONS[name]
    for key in _ranges.ranges(section):
        for value in outside(section, key):
            with pytest.raises(UserError, match=rf"^{name}\.{key} is {re.escape(str(value))}.*; expected "):
                section(**{key: with_value(section, key, value)})
        for value in ("1", True, 1j, [math.nan]):
            with pytest.raises(UserError, match=rf"^{name}\.{key} is .*; expected "):
                section(**{key: with_value(section, key, value)})


@pytest.mark.parametrize("name", SECTIONS)
def test_messages_name_the_option_and_the_file(name):
    section = SECTIONS[name]
    for key in _ranges.ranges(section).keys() & configs.keys(section).keys():
        many = isinstance(with_value(section, key, 0), tuple)
        for value in outside(section, key):
            text = str(value).replace("inf", ".inf").replace("nan", ".nan")
            text = f"[{text}]" if many else text
            place = re.escape(f"--set {name}.{key}={text}: {name}.{key}")
            with pytest.raises(UserError, match=f"^{place}(, one of the values)? is .*; expected "):
                configs.load(None, [f"{name}.{key}={text}"])
        with pytest.raises(UserError, match=rf"^a.yaml: {name}\.{key}(, one of the values)? is .*; expected "):
            configs.build([({name: {key: [value] if many else value}}, "a.yaml")])


ACCEPTED_BEFORE = """
    optim.learning_rate=.nan optim.learning_rate=inf optim.learning_rate=1e-60 optim.beta1=1.5 optim.beta2=1
    optim.beta2=0.999999999 optim.weight_decay=-1 optim.momentum=2 optim.warmup=-5 optim.final=-1 optim.clip_norm=nan
    augment.warmup=-1 augment.squeeze=1 data.cache_mb=-1 data.weights=[0] run.seed=4294967296 loss.ignored=[-1]
    loss.weight=nan
""".split()


@pytest.mark.parametrize("override", ACCEPTED_BEFORE)
def test_formerly_accepted_values_are_rejected(override):
    key, value = override.split("=")
    with pytest.raises(UserError, match=rf"^--set {re.escape(override)}: {key}(, one of the values)? is "):
        configs.load(None, [override])


def test_ranges_that_depend_on_two_keys():
    with pytest.raises(UserError, match=r"augment.zoom and taper are 0.6 and 0.5; expected a sum of less than 1"):
        AugmentConfig(zoom=0.6, taper=0.5)


def test_numpy_numbers_are_accepted():
    assert OptimConfig(steps=np.int64(3), learning_rate=np.float32(0.1), clip_norm=2).clip_norm == 2


def test_clip_norm_0_disables_clipping():
    grads = {"kernel": jnp.full(3, 100.0)}
    config = OptimConfig(optimizer="sgd", momentum=0.0, weight_decay=0.0, warmup=0, clip_norm=0.0, learning_rate=0.5)
    state = optim.make(config).init(grads)
    moved, _ = optim.update(config, grads, state, grads)
    np.testing.assert_allclose(moved["kernel"], 50.0)
    clipped = optim.make(dataclasses.replace(config, clip_norm=1.0))
    assert jax.tree.structure(clipped.init(grads)) == jax.tree.structure(state)
