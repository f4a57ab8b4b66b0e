"""Make a smaller recogniser out of a trained one, as a start for experiments that need many short runs.

    python scripts/smaller.py pretrained small --channels 128 --hidden 96 --charset characters.txt

Of each convolution, the channels that matter most to the layer after it are kept (the size of its weights for them,
times the scale of the normalisation in between); of each LSTM, the units that matter most to what follows. The weights
for what remains are scaled by the square root of how many times fewer there are. The result reads next to nothing, but
after a few hundred steps of fine-tuning it reads again, while random weights of this size have not learnt anything by
then. Only models with the backbone `vgg`, channels of their own and two bidirectional LSTMs.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import jaxcrnn
from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError
from jaxcrnn.interop.exporters import to_safetensors
from jaxcrnn.nn.layers import layers_of


def most(importance: np.ndarray, count: int) -> np.ndarray:
    """Indices of the most important of a layer's outputs, in order."""
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def smaller_backbone(variables: Any, channels: int) -> tuple[Any, np.ndarray]:
    """Backbone with fewer channels, and which of its outputs are kept."""
    layers, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]
    sizes = [layer.features for layer in layers_of("vgg", channels)]
    params: dict[str, Any] = {}
    means: dict[str, Any] = {}
    inputs, scale = np.arange(1), 1.0
    for i, size in enumerate(sizes):
        conv, name = layers[f"conv{i}"], f"norm{i}"
        if i + 1 < len(sizes):
            importance = np.sqrt(np.square(layers[f"conv{i + 1}"]["kernel"]).sum((0, 1, 3)))
        else:
            importance = np.sqrt(np.square(variables["params"]["lstm0"]["kernel_x"]).sum((0, 2)))
        if name in layers:
            importance = importance * np.abs(layers[name]["scale"])
        else:
            importance = importance * np.sqrt(np.square(conv["kernel"]).sum((0, 1, 2)))
        kept = most(importance, size)
        params[f"conv{i}"] = {"kernel": conv["kernel"][:, :, inputs][..., kept] * scale}
        if "bias" in conv:
            params[f"conv{i}"]["bias"] = conv["bias"][kept]
        if name in layers:
            params[name] = {key: layers[name][key][kept] for key in ("scale", "bias")}
            means[name] = {key: stats[name][key][kept] for key in ("mean", "var")}
        inputs, scale = kept, float(np.sqrt(len(importance) / size))
    return ({"params": params, "batch_stats": means}), inputs


def smaller(reader: Any, channels: int, hidden: int, charset: Charset) -> Any:
    """Variables of the smaller model."""
    params, old = reader.variables["params"], reader.model.hidden
    wider = float(np.sqrt(old / hidden))
    backbone, inputs = smaller_backbone(reader.variables, channels)
    out: dict[str, Any] = {"backbone": backbone["params"]}
    scale = float(np.sqrt(params["backbone"]["conv6"]["kernel"].shape[3] / channels))
    for number in (0, 1):
        layer, kept, made = params[f"lstm{number}"], [], {"bias": [], "kernel_h": [], "kernel_x": []}
        for direction in (0, 1):
            mine = slice(direction * old, (direction + 1) * old)
            after = params["lstm1"]["kernel_x"][:, mine] if number == 0 else params["head"]["kernel"][None, mine]
            units = most(np.sqrt(np.square(after).sum((0, 2))), hidden)
            gates = np.concatenate([gate * old + units for gate in range(4)])
            kept.append(mine.start + units)
            made["bias"].append(layer["bias"][direction][gates])
            made["kernel_h"].append(layer["kernel_h"][direction][units][:, gates] * wider)
            made["kernel_x"].append(layer["kernel_x"][direction][inputs][:, gates] * scale)
        out[f"lstm{number}"] = {name: np.stack(arrays) for name, arrays in made.items()}
        inputs, scale = np.concatenate(kept), wider
    ids = reader.charset.encode("".join(charset.characters))
    blank = reader.model.blank
    classes = np.insert(np.asarray(ids), charset.blank, blank)
    head = params["head"]
    out["head"] = {"kernel": head["kernel"][inputs][:, classes] * scale, "bias": head["bias"][classes]}
    return {"params": out, "batch_stats": {"backbone": backbone["batch_stats"]}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="pretrained, or the folder of a trained recogniser")
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--channels", type=int, default=128, help="channels of the last convolution (default: 128)")
    parser.add_argument("--hidden", type=int, default=96, help="units of an LSTM in each direction (default: 96)")
    parser.add_argument("--charset", help="file of the characters to keep, one a line (default: all)")
    args = parser.parse_args()
    try:
        reader = jaxcrnn.load(args.model, engine="jax")
        charset = Charset.from_file(args.charset) if args.charset else reader.charset
        missing = sorted(set(charset.characters) - set(reader.charset.characters))
        if missing:
            raise UserError(f"{args.charset}: {missing[0]!r} is not a character of {args.model}")
        old = reader.model
        if (old.backbone, old.recurrent) != ("vgg", "bilstm bilstm") or not old.imported.channels:
            raise UserError(f"{args.model}: expected backbone vgg with model.channels, and recurrent bilstm bilstm")
        if not (8 <= args.channels <= old.imported.channels and 1 <= args.hidden <= old.hidden):
            raise UserError(
                f"--channels {args.channels} --hidden {args.hidden}: expected 8 to {old.imported.channels}, "
                f"and 1 to {old.hidden}"
            )
        model = replace(
            old,
            hidden=args.hidden,
            num_classes=charset.num_classes,
            blank=charset.blank,
            imported=replace(old.imported, channels=args.channels),
        )
        variables = smaller(reader, args.channels, args.hidden, charset)
        small = replace(reader, model=model, variables=variables, charset=charset)
        print(to_safetensors(small, Path(args.model), args.out))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
