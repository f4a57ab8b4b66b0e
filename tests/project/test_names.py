"""Names that users may rely on: the public ones, and those that pages of version 0.1 used."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcrnn


def test_every_public_name_exists():
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
def test_moved_modules_keep_their_old_names(old, name):
    assert callable(getattr(getattr(jaxcrnn, old), name))


def test_logits_functions_of_version_0_1_still_work():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
    classes = jnp.asarray([[0, 1, 2], [4, 3, 0]])
    np.testing.assert_allclose(jaxcrnn.head.norm(logits), np.logaddexp.reduce(logits, 2), rtol=1e-6)
    picked = jaxcrnn.head.of_frames(logits, classes)
    np.testing.assert_array_equal(
        picked, np.take_along_axis(np.asarray(logits), np.asarray(classes)[..., None], 2)[..., 0]
    )


def test_importing_the_package_does_not_import_jax():
    code = "import sys, jaxcrnn; jaxcrnn.Charset('ab'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
