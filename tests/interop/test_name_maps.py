"""Maps of names for CRNNs whose parts have names of their own: what is printed to fill in, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.interop import checkpoint_layouts, importer, map_template, name_maps, reorder
from jaxcrnn.nn.layers import layers_of

CHARSET = Charset("0123456789")
MAP = """backbone.conv0 = features.0
backbone.norm0 = features.1  # a comment
backbone.conv1 = features.4
backbone.conv2 = features.7

recurrent.0 = projection
recurrent.1 = lstm.*_l0
recurrent.2 = lstm.*_l1
head = classifier
"""


def conv(name, out, size, kernel=(3, 3), bias=True):
    return {f"{name}.weight": (out, size, *kernel)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name, size):
    return {f"{name}.{leaf}": (size,) for leaf in ("weight", "bias", "running_mean", "running_var")}


def linear(name, out, size):
    return {f"{name}.weight": (out, size), f"{name}.bias": (out,)}


def lstm(name, size, hidden, layers=1, gates=4):
    shapes = {}
    for k in range(layers):
        for end in ("", "_reverse"):
            inputs = size if k == 0 else 2 * hidden
            shapes |= {f"{name}.weight_ih_l{k}{end}": (gates * hidden, inputs)}
            shapes |= {f"{name}.weight_hh_l{k}{end}": (gates * hidden, hidden)}
            shapes |= {f"{name}.bias_{which}_l{k}{end}": (gates * hidden,) for which in ("ih", "hh")}
    return shapes


def arrays(shapes):
    rng = np.random.default_rng(0)
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return state | {
        name.replace("running_mean", "num_batches_tracked"): np.asarray(7) for name in shapes if "running_mean" in name
    }


SHAPES = {
    **conv("features.0", 4, 1),
    **norm("features.1", 4),
    **conv("features.4", 6, 4),
    **conv("features.7", 6, 6),
    **linear("projection", 7, 12),
    **lstm("lstm", 7, 5, 2),
    **linear("classifier", 11, 10),
}


@pytest.fixture
def read(tmp_path):
    """Read a map, and build its layout."""

    def with_text(text, shapes=SHAPES, **options):
        (tmp_path / "names.map").write_text(text)
        renamed = name_maps.read(tmp_path / "names.map", arrays(shapes), Path("w.pth"))
        return renamed, name_maps.layout(renamed, tmp_path / "names.map", 11, **options)

    return with_text


def test_template_is_complete_if_shapes_and_numbers_are_unique(read):
    template = map_template.template(arrays(SHAPES), 11)
    assert (template.filled, template.total, template.lacking) == (8, 8, "")
    assert [line.split("  #")[0] for line in template.text.splitlines()[3:]] == [
        line.split("  #")[0] for line in MAP.splitlines() if line
    ]
    assert "backbone.conv1 = features.4  # [6, 4, 3, 3]" in template.text
    _, layout = read(template.text)
    assert layout.model["backbone"] == "4nbp2x2 6p2x2 6p4x1"
    assert layout.model["recurrent"] == "linear:7 bilstm bilstm"


def test_ambiguous_names_are_comments_with_candidates():
    shapes = {
        **conv("entry", 4, 1),
        **conv("left", 4, 4),
        **conv("right", 4, 4),
        **norm("p", 4),
        **norm("q", 4),
        **lstm("one", 4, 2),
        **lstm("two", 4, 2),
        **linear("last", 11, 4),
        "aux": (3, 4),
    }
    lines = map_template.template(arrays(shapes), 11).text.splitlines()[3:]
    assert lines == [
        "backbone.conv0 = entry  # [4, 1, 3, 3]",
        "# backbone.norm0 = p  # [4]; or q",
        "# backbone.conv1 = left  # [4, 4, 3, 3]; or right",
        "# backbone.norm1 = p  # [4]; or q",
        "# backbone.conv2 = right  # [4, 4, 3, 3]; or left",
        "# backbone.norm2 = p  # [4]; or q",
        "# recurrent.0 = one  # [8, 2]; or two",
        "# recurrent.1 = two  # [8, 2]; or one",
        "head = last  # [11, 4]",
        "# unused = aux  # an array [3, 4]",
    ]
    no_head = map_template.template(arrays({**shapes, **linear("last", 9, 4)}), 11)
    assert "# head = last  # no layer has the charset's 11 classes; linear layers: last [9, 4]" in no_head.text


def test_numbers_in_names_resolve_equal_shapes():
    """The order of the file does not: safetensors sorts names as text."""
    shapes = {**conv("a", 8, 1), **lstm("rnn", 8, 3), **linear("last", 11, 6)}
    for i in (10, 9, 2):
        shapes |= conv(f"conv{i}", 8, 8) | norm(f"bn{i}", 8)
    template = map_template.template(arrays(shapes), 11)
    parts = [line.split("  #")[0] for line in template.text.splitlines() if line.startswith("backbone.")]
    assert parts == [
        "backbone.conv0 = a",
        "backbone.conv1 = conv2",
        "backbone.norm1 = bn2",
        "backbone.conv2 = conv9",
        "backbone.norm2 = bn9",
        "backbone.conv3 = conv10",
        "backbone.norm3 = bn10",
    ]


@pytest.mark.parametrize(
    ("shapes", "lacking"),
    [
        ({"bert.0.weight": (8, 8)}, "it is not a CRNN: no convolutions and no LSTMs (weight_hh_l0)"),
        (
            {**conv("c", 4, 1), **lstm("gru", 4, 5, gates=3), **linear("h", 11, 10)},
            "gru is a GRU (weight_hh [15, 5]), and only LSTMs are supported",
        ),
        ({**conv("c", 4, 1), **lstm("rnn", 4, 5)}, "no linear layers"),
    ],
)
def test_other_models_get_no_template(shapes, lacking):
    template = map_template.template(arrays(shapes), 11)
    assert template.text == ""
    assert lacking in template.lacking


def test_import_and_export_are_bitwise_inverse(read):
    """Rows that torch flattens channel by channel are reordered, and back; unused arrays are counted."""
    shapes = {**SHAPES, "center.0": (11, 10), "center.1": (3,)}
    renamed, layout = read(MAP + "unused = center", shapes)
    assert renamed.unused == ["center.0", "center.1"]
    assert "2 rows flattened channel by channel, as by permute(0, 3, 1, 2).flatten(2)" in layout.assumed
    _, variables, counters = importer.converted(renamed.arrays, CHARSET, layout=layout)
    theirs = renamed.arrays["recurrent.0.weight"].reshape(7, 6, 2)
    np.testing.assert_array_equal(variables["params"]["linear0"]["kernel"].reshape(2, 6, 7), theirs.transpose(2, 1, 0))
    back = checkpoint_layouts.state_of(layout, reorder.rows_moved(layout, variables, back=True), counters)
    state = {name: a for name, a in arrays(shapes).items() if not name.startswith("center")}
    assert {renamed.names.get(name, name) for name in back} == set(state)
    for name, value in back.items():
        np.testing.assert_array_equal(value, state[renamed.names.get(name, name)])


def test_known_backbones_keep_their_poolings(read):
    """They are padded, which no chain of names tells; --pools says it for others."""
    shapes, lines, size = {}, [], 1
    for i, layer in enumerate(layers_of("vgg-crnn", 16)):
        shapes |= conv(f"c{i}", layer.features, size, layer.kernel)
        lines.append(f"backbone.conv{i} = c{i}")
        if layer.norm:
            shapes |= norm(f"b{i}", layer.features)
            lines.append(f"backbone.norm{i} = b{i}")
        size = layer.features
    shapes |= lstm("rnn", 16, 3) | linear("fc", 11, 6)
    text = "\n".join([*lines, "recurrent.0 = rnn", "head = fc"])
    _, layout = read(text, shapes)
    assert (layout.model["backbone"], layout.model["imported"].channels) == ("vgg-crnn", 16)
    _, layout = read(text, shapes, pools="2x2,2x2,-,2x2s1a1,-,2x2s1a1,-")
    own = layers_of("vgg-crnn", 16)
    assert layers_of(layout.model["backbone"]) == tuple(one._replace(biased=one.norm) for one in own)
    with pytest.raises(UserError, match="do not tell where the poolings are; give them with --pools, such as --pools"):
        read(text.replace("backbone.norm2 = b2", "unused = b2"), shapes)


def _changed(old, new):
    return MAP.replace(old, new)


WRONG = {
    "no equals sign": ("features.0", "names.map, line 1: 'features.0'; expected OURS = THEIRS"),
    "nothing of theirs": ("\nhead =", "names.map, line 2: 'head ='; expected OURS = THEIRS"),
    "unknown here": (_changed("conv1 ", "con1 "), "line 3: unknown name 'backbone.con1'; expected backbone.conv0, "),
    "unknown there": (
        _changed("features.4", "feature.4"),
        "line 3: no array 'feature.4' in w.pth, and none begins with it; did you mean features.4?",
    ),
    "an array for a part": (
        _changed("features.4", "features.4.weight"),
        "line 3: features.4.weight is an array and backbone.conv1 is a part; expected a name such",
    ),
    "theirs twice": (MAP + "recurrent.3 = projection", "line 10: duplicate projection.weight (first on line 6)"),
    "ours twice": (_changed("conv1 ", "conv0 "), "line 3: duplicate backbone.conv0.weight (first in "),
    "several layers": (_changed("lstm.*_l0", "lstm"), "line 7: lstm.weight_ih_l1 does not fit into recurrent.1; a "),
    "no such layer": (_changed("*_l1", "*_l2"), "line 8: no array 'lstm.*_l2'"),
    "empty": ("# nothing\n", "names.map: maps no array; expected lines OURS = THEIRS"),
    "not mapped": (_changed("head = classifier", ""), "does not map 2 of 31 arrays of w.pth, those of classifier; "),
    "no head": (_changed("head", "unused"), "names.map: missing 2 of 30 arrays: head.weight, head.bias"),
    "a gap": (_changed("recurrent.2", "recurrent.3"), "missing 4 of 34 arrays: recurrent.2.weight_ih_l0, recurrent.2"),
    "no bias": (
        _changed("conv1 = features.4", "conv1.weight = features.4.weight\nunused = features.4.bias"),
        "missing 1 of 30 arrays: backbone.conv1.bias",
    ),
    "swapped": (
        _changed("features.4", "features.x").replace("features.7", "features.4").replace(".x", ".7"),
        "line 3: backbone.conv1.weight = features.7.weight has shape [6, 6, 3, 3]; expected [C, 4, H, W], 4 ",
    ),
    "a layer for another": (
        _changed("lstm.*_l0", "lstm.x").replace("lstm.*_l1", "lstm.*_l0").replace(".x", ".*_l1"),
        "line 7: recurrent.1.weight_ih_l0 = lstm.weight_ih_l1 has shape [20, 10]; expected "
        "[20, 7], the 7 outputs of recurrent.0",
    ),
    "a norm elsewhere": (
        _changed("norm0", "norm1"),
        "line 2: backbone.norm1.weight = features.1.weight has shape [4]; expected [6], the channels of backbone.conv1",
    ),
    "a convolution as linear": (
        _changed("recurrent.0 = projection", "recurrent.0 = features.7").replace(
            "conv2 = features.7", "conv2 = projection"
        ),
        "backbone.conv2.weight = projection.weight has shape [7, 12]; expected [C, 6, H, W]",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_maps_are_rejected_with_line_and_shapes(name, read):
    text, message = WRONG[name]
    with pytest.raises(UserError) as error:
        read(text)
    assert message in str(error.value)


def test_mismatched_rows_and_classes_are_rejected(read):
    with pytest.raises(
        UserError, match=r"takes 12 features; expected 6 \(6 channels x 1 rows\) for images of height 3"
    ):
        read(MAP, pools="2x2,2x2,8x1")
    with pytest.raises(UserError, match=r"head.weight = classifier.weight has shape \[9, 10\]; expected \[11, 10\]"):
        read(MAP, {**SHAPES, **linear("classifier", 9, 10)})


def test_template_command_writes_no_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    CHARSET.save(Path("digits.txt"))
    save_file(arrays(SHAPES), "w.safetensors")
    arguments = ["convert", "w.safetensors", "--charset", "digits.txt", "--out", "run"]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "a map of its names is on standard output, with 8 of 8 lines filled in" in captured.err
    assert "recurrent.1 = lstm.*_l0" in captured.out
    Path("names.map").write_text(captured.out.replace("head = ", "head = a."))
    assert main([*arguments, "--map", "names.map"]) == 2
    assert "names.map, line 11: no array 'a.classifier' in w.safetensors" in capsys.readouterr().err
    assert not Path("run").exists()
