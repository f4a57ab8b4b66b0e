"""Fixtures of the tests of scripts."""

import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def scripts_can_be_imported():
    before = list(sys.path)
    sys.path[:0] = [str(SCRIPTS), str(SCRIPTS / "pretrain")]
    yield
    sys.path[:] = before
