"""Checkpoints of other programs, maps of names, and other files in their place."""

import argparse
import shutil
import zipfile
from pathlib import Path

from case import Case

TITLE = "Checkpoints of other programs"


def prepare(root: Path) -> None:
    """Files that are given to convert, export and --init-from instead of what they expect."""
    import numpy as np
    import torch
    from torch_models import Named, narrow, random

    with torch.no_grad():
        module, own = random(narrow()), random(Named())
    state, named = module.state_dict(), own.state_dict()
    torch.save(state, root / "weights.pth")
    torch.save(module, root / "module.pth")
    torch.save(module, root / "module-old.pth", _use_new_zipfile_serialization=False)
    torch.jit.trace(module, torch.zeros(1, 1, 32, 40)).save(str(root / "script.pt"))
    torch.save(
        {
            "state_dict": {f"model.{k}": v for k, v in state.items()},
            "epoch": 3,
            "hyper_parameters": {"lr": 0.1},
            "optimizer_states": [{"state": {}}],
        },
        root / "lightning.ckpt",
    )
    torch.save({"model": state, "ema": state, "epoch": 3}, root / "two.pth")
    torch.save({"generator": {"module": {f"module.{k}": v for k, v in state.items()}}}, root / "nested.pth")
    torch.save({f"net.{k}": v for k, v in state.items()} | {"loss.centers": torch.ones(11, 5)}, root / "partly.pth")
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, root / "namespace.pth")
    torch.save({"model": state, "best": np.float64(0.9)}, root / "numpy.pth")
    torch.save({"model": module, "epoch": 3}, root / "inner.pth")
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters)
    sum(p.sum() for p in parameters).backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), root / "optimizer.pth")
    torch.save({"optimizer": optimizer.state_dict(), "epoch": 3}, root / "optimizer-in.pth")
    torch.save(named, root / "named.pth")
    torch.save({f"bert.layer.{i}.attention.weight": torch.ones(8, 8) for i in range(4)}, root / "pytorch_model.bin")
    torch.save(
        {
            **{k: v for k, v in named.items() if "lstm" not in k},
            **{f"gru.{k}": v for k, v in torch.nn.GRU(7, 5).state_dict().items()},
        },
        root / "gru.pth",
    )
    whole = (root / "weights.pth").read_bytes()
    (root / "cut.pth").write_bytes(whole[: len(whole) // 2])
    torch.save(state, root / "old.pth", _use_new_zipfile_serialization=False)
    (root / "cut-old.pth").write_bytes((root / "old.pth").read_bytes()[:-100])
    with zipfile.ZipFile(root / "photos.zip", "w") as archive:
        archive.writestr("a.png", b"")
    with zipfile.ZipFile(root / "english.zip", "w") as archive:
        archive.writestr("english.pth", whole)
    np.savez(root / "arrays.npz", a=np.ones(3))
    (root / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.9.0:")
    (root / "pointer.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (root / "page.pth").write_bytes(b"<!DOCTYPE html>\n<html><head></head></html>")
    (root / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (root / "packed.pth.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(64))
    (root / "text.pth").write_text("hello, this is text\n")
    (root / "hub").mkdir()
    shutil.copy(root / "weights.pth", root / "hub" / "pytorch_model.bin")
    (root / "hub" / "config.json").write_text('{"model_type": "vit"}')
    from safetensors.torch import save_file

    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in state.items()}, root / "bfloat16.safetensors")
    save_file({k: v.half().contiguous() for k, v in state.items()}, root / "half.safetensors")
    save_file({k: v.to(torch.float8_e4m3fn).contiguous() for k, v in state.items()}, root / "float8.safetensors")
    maps = {
        "good": "",
        "typo": "backbone.con0 = features.0",
        "theirs": "backbone.conv0 = feature.0",
        "form": "features.0",
        "twice": "backbone.conv0 = features.0\nbackbone.conv1 = features.0",
        "shape": "",
        "missing": "backbone.conv0 = features.0\nunused = features\nunused = lstm",
        "partial": "backbone.conv0 = features.0",
    }
    lines = [
        "backbone.conv0 = features.0",
        "backbone.norm0 = features.1",
        "backbone.conv1 = features.4",
        "backbone.norm1 = features.5",
        "backbone.conv2 = features.8",
        "recurrent.0 = projection",
        "recurrent.1 = lstm.*_l0",
        "recurrent.2 = lstm.*_l1",
        "head = classifier",
    ]
    maps["good"] = "\n".join(lines)
    maps["shape"] = (
        maps["good"].replace("conv1 = features.4", "conv1 = features.8").replace("2 = features.8", "2 = features.4")
    )
    maps["missing"] = "\n".join(line for line in lines if "head" not in line) + "\nunused = classifier"
    for name, text in maps.items():
        (root / f"{name}.map").write_text(text + "\n")


def convert(file: str, *more: str) -> list[str]:
    return ["convert", file, "--charset", "digits.txt", "--out", "new", *more]


def cases() -> list[Case]:
    rows = [
        ("a whole pickled module", convert("module.pth")),
        ("a whole module of the old format", convert("module-old.pth")),
        ("a TorchScript archive", convert("script.pt")),
        ("a module inside a checkpoint", convert("inner.pth")),
        ("a NumPy scalar beside the weights", convert("numpy.pth")),
        ("two state dicts in one file", convert("two.pth")),
        ("a key that is not in the file", convert("two.pth", "--key", "emo")),
        ("a prefix before some names", convert("partly.pth")),
        ("only the state of an optimizer", convert("optimizer.pth")),
        ("an optimizer without weights", convert("optimizer-in.pth")),
        ("a CRNN with names of its own", convert("named.pth")),
        ("a map with an unknown name of ours", convert("named.pth", "--map", "typo.map")),
        ("a map with an unknown name of theirs", convert("named.pth", "--map", "theirs.map")),
        ("a map line without =", convert("named.pth", "--map", "form.map")),
        ("a map that names a part twice", convert("named.pth", "--map", "twice.map")),
        ("a map with a wrong shape", convert("named.pth", "--map", "shape.map")),
        ("a map without the head", convert("named.pth", "--map", "missing.map")),
        ("a map that leaves arrays", convert("named.pth", "--map", "partial.map")),
        ("no such map", convert("named.pth", "--map", "none.map")),
        ("a transformer", convert("pytorch_model.bin")),
        ("a recogniser with a GRU", convert("gru.pth")),
        ("a truncated checkpoint", convert("cut.pth")),
        ("a truncated checkpoint of the old format", convert("cut-old.pth")),
        ("a zip archive of photos", convert("photos.zip")),
        ("a checkpoint in a zip archive", convert("english.zip")),
        ("arrays of NumPy", convert("arrays.npz")),
        ("an ONNX model", convert("model.onnx")),
        ("a Git LFS pointer", convert("pointer.pth")),
        ("a web page", convert("page.pth")),
        ("a Keras model", convert("keras.h5")),
        ("a compressed checkpoint", convert("packed.pth.gz")),
        ("a text file", convert("text.pth")),
        ("a folder of a model hub", convert("hub")),
        ("a run", convert("run")),
        ("numbers of 8 bits", convert("float8.safetensors")),
        ("a checkpoint to export", ["export", "weights.pth", "--format", "onnx", "--out", "new"]),
        ("a folder of a model hub to export", ["export", "hub", "--format", "onnx", "--out", "new"]),
        ("a folder that is not there to export", ["export", "none", "--format", "onnx", "--out", "new"]),
        ("checkpoints of a run to export", ["export", "run/checkpoints", "--format", "onnx", "--out", "new"]),
        ("a checkpoint for --init-from", ["train", "--data", "good.txt", "--init-from", "weights.pth", "--out", "new"]),
        (
            "a folder of a model hub for --init-from",
            ["train", "--data", "good.txt", "--init-from", "hub", "--out", "new"],
        ),
    ]
    more = ["--charset", "digits.txt", "--pools", "32x1"]
    accepted = [
        ("a Lightning checkpoint", ["convert", "lightning.ckpt", *more, "--out", "new"]),
        ("one of two state dicts", ["convert", "two.pth", *more, "--key", "ema", "--out", "new"]),
        ("a nested state dict with a prefix", ["convert", "nested.pth", *more, "--out", "new"]),
        ("names with a prefix", ["convert", "partly.pth", *more, "--key", "net", "--out", "new"]),
        ("an argparse.Namespace beside the weights", ["convert", "namespace.pth", *more, "--out", "new"]),
        ("bfloat16", ["convert", "bfloat16.safetensors", *more, "--out", "new"]),
        ("half precision", ["convert", "half.safetensors", *more, "--out", "new"]),
        ("a map", ["convert", "named.pth", "--charset", "digits.txt", "--map", "good.map", "--out", "new"]),
    ]
    return [Case(what, arguments) for what, arguments in rows + accepted]
