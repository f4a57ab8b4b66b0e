"""Hints of the audit that say what to do, each of which must work as written."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from jaxcrnn._text import read_text
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.data.label_checks import LabelChecks
from jaxcrnn.errors import UserError


def test_a_private_use_character_is_not_called_a_control_character():
    checks = LabelChecks(Charset("\ue000\x85"))
    assert checks._described("\ue000").startswith("U+E000 private-use character")
    assert checks._described("\x85").startswith("U+0085 control character")


def test_utf8_with_a_mark_is_not_to_be_saved_as_utf8(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("0.png\t1\n".encode("utf-8-sig"))
    with pytest.raises(UserError, match="not GBK; expected GBK text, or utf-8 as its encoding$"):
        read_text(path, encoding="gbk", advice="; save it as UTF-8")


def test_convert_takes_the_vertical_option_that_its_audit_names(tmp_path, capsys):
    pytest.importorskip("lmdb")
    Image.fromarray(np.full((90, 30), 200, np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "labels.txt").write_text("0.png\t123\n")
    out = str(tmp_path.parent / (tmp_path.name + "-lmdb"))
    assert main(["data", "convert", str(tmp_path / "labels.txt"), out, "--vertical"]) == 0
    assert "1 of 1 lines are taller than wide and are rotated" in capsys.readouterr().out
