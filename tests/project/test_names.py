"""Names that users may rely on: the public ones, and those that pages of version 0.1 used."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcrnn


def test_every_public_name_is_there():
    assert len(set(jaxcrnn.__all__)) == len(jaxcrnn.__all__)
    for name in jaxcrnn.__all__:
        assert getattr(jaxcrnn, name) is not None
    assert jaxcrnn.ctc_loss is jaxcrnn.ctc.ctc_loss
    assert set(jaxcrnn.__all__) == set(dir(jaxcrnn))
    with pytest.raises(AttributeError, match="no attribute 'ctc_los'"):
        jaxcrnn.ctc_los  # noqa: B018


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("backbones", "layers_of"),
        ("checkpoint", "Checkpoints"),
        ("recurrent", "BiLSTM"),
        ("sharding", "of_state"),
        ("beam", "search"),
        ("automata", "lexicon"),
        ("evaluate", "evaluate"),
        ("recognizer", "load"),
    ],
)
def test_modules_that_moved_are_served(old, name):
    assert callable(getattr(getattr(jaxcrnn, old), name))


def test_logits_are_asked_as_before():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
    classes = jnp.asarray([[0, 1, 2], [4, 3, 0]])
    np.testing.assert_allclose(jaxcrnn.head.norm(logits), np.logaddexp.reduce(logits, 2), rtol=1e-6)
    picked = jaxcrnn.head.of_frames(logits, classes)
    np.testing.assert_array_equal(
        picked, np.take_along_axis(np.asarray(logits), np.asarray(classes)[..., None], 2)[..., 0]
    )


def test_the_package_loads_no_jax():
    code = "import sys, jaxcrnn; jaxcrnn.Charset('ab'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
