"""The weights that the package includes."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcrnn
from jaxcrnn.errors import UserError


def test_weights_of_the_package_are_opened_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = jaxcrnn.load()
    assert len(reader.charset) == 6966
    assert {"未", "末", "0", "O"} <= set(reader.charset.characters)
    leaves = jax.tree.leaves(reader.variables)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    folder = Path(jaxcrnn.__file__).parent / "resources" / "pretrained"
    assert (folder / "model.safetensors").stat().st_size < 16_000_000


def test_folder_named_like_the_weights_of_the_package_has_priority(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").mkdir()
    with pytest.raises(UserError, match="^pretrained: not a run folder"):
        jaxcrnn.load("pretrained")
