"""The options of every command. Nothing here imports jax: ``--help`` answers at once."""

from __future__ import annotations

import argparse
from typing import NoReturn

WEIGHTS = (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 100)  # of look-alike rescoring


class Parser(argparse.ArgumentParser):
    """One line for a mistake, and where help is."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see '{self.prog} --help'\n")


def _checkpoint_option(parser: argparse.ArgumentParser, default: str | None = "best") -> None:
    parser.add_argument(
        "--checkpoint", default=default, metavar="WHICH", help="best (the default), latest, or a step's number"
    )


def train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="FILE",
        help="training set: a label file of path<TAB>text, or what 'data' reads; of several, data.weights says how "
        "many lines of a batch come from each",
    )
    parser.add_argument("--val", metavar="FILE", help="label file of the validation set")
    parser.add_argument("--charset", metavar="FILE", help="one character a line; default: those of the training labels")
    parser.add_argument("--out", metavar="FOLDER", help="new folder for the run")
    parser.add_argument("--config", metavar="FILE", help="YAML file with the keys listed below")
    _set_option(parser)
    parser.add_argument(
        "--preset", metavar="NAME", help="loss.preset: ctc, flow1, flow1-torch, flow2, aligned, posterior"
    )
    parser.add_argument(
        "--init-from", metavar="RUN", help="start from a run: its weights, charset and configuration, but the loss"
    )
    parser.add_argument("--checkpoint", metavar="WHICH", help="of --init-from: best (the default), latest, or a step")
    parser.add_argument(
        "--grow", action="store_true",
        help="with --init-from: another charset (--charset, or that of the labels); what is known of a character moves "
        "with it",
    )  # fmt: skip
    parser.add_argument(
        "--centers", metavar="WHERE", help="centers to start from: a file of 'centers estimate', head, zeros or normal"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out, counted, what the audit finds")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with a run, exactly where it stopped")
    parser.add_argument(
        "--auto-resume", action="store_true",
        help="go on with the run of --out if there is one, start it otherwise: one command for jobs that come back",
    )  # fmt: skip
    _trust_option(parser)
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    several = parser.add_argument_group("several processes")
    several.add_argument(
        "--distributed", action="store_true",
        help="this is one process of several; SLURM, Open MPI, Kubernetes and Cloud TPU say which",
    )  # fmt: skip
    several.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere: where the first process listens")
    several.add_argument("--process-count", type=int, metavar="N", help="how many processes there are")
    several.add_argument("--process-index", type=int, metavar="I", help="which one this is, from 0")


def _set_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override keys: optim.steps=500"
    )


def _trust_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-code", action="store_true", help="import the modules that a run's loss names, which runs their code"
    )


def _outside_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-outside", action="store_true", help="label files may name images outside the folder they are in"
    )
    _bounds_options(parser)


def _bounds_options(parser: argparse.ArgumentParser) -> None:
    for what in ("pixels", "bytes"):
        parser.add_argument(
            f"--max-{what}", type=int, metavar="N",
            help=f"most {what} of an image; default: the run's data.max_{what}, and no more than a new run's",
        )  # fmt: skip


def decoding_options(parser: argparse.ArgumentParser, tuned: bool = False) -> None:
    group = parser.add_argument_group("decoding")
    group.add_argument("--beam", type=int, metavar="W", help="prefix beam search with W prefixes; default: best path, "
                       "or 16 where an option below needs it")  # fmt: skip
    if not tuned:
        group.add_argument("--best", type=int, metavar="N", help="the N best readings")
    group.add_argument("--lexicon", metavar="FILE", help="one word a line; only these are read")
    group.add_argument("--lexicon-weight", type=float, metavar="X", help="others too; each listed word scores X more")
    group.add_argument("--lm", metavar="FILE", help="character n-grams of 'lm train'")
    group.add_argument("--lm-weight", type=float, metavar="X", help="of its log probabilities; default: 0.5")
    group.add_argument("--lm-bonus", type=float, metavar="X", help="for each character; default: 0")
    if tuned:
        return
    group.add_argument("--rescore", type=float, metavar="X", help="weight of distances to centers between look-"
                       "alikes, found by 'lookalikes tune'")  # fmt: skip
    _rescoring_options(group)


def _rescoring_options(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--centers", metavar="FILE", help="of 'centers estimate'; default: the run's")
    _groups_option(parser)


def _groups_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--groups", metavar="FILE", help="look-alike groups, one a line; default: those in the package")


def lm_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    train = actions.add_parser("train", help="count the n-grams of plain text", description="Count n-grams of text.")
    train.add_argument("text", nargs="+", help="UTF-8 text files, a line of text a line")
    train.add_argument("--labels", action="store_true", help="they are label files: take what follows the tab")
    train.add_argument("--order", type=int, default=4, metavar="N", help="characters of an n-gram at most; default: 4")
    train.add_argument("--out", required=True, metavar="FILE", help="file to write")


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("--data", metavar="FILE", help="label file; default: the run's validation set")
    parser.add_argument("--charset", metavar="FILE", help="stop unless the run was trained with this charset")
    parser.add_argument("--batch-size", type=int, metavar="N", help="lines at a time; changes the speed, no result")
    _checkpoint_option(parser)
    _trust_option(parser)
    parser.add_argument("--positions", action="store_true", help="accuracy of each position of the text")
    parser.add_argument("--predictions", metavar="FILE", help="write path<TAB>prediction<TAB>truth")
    parser.add_argument("--skip-bad", action="store_true", help="leave out, counted, images that cannot be read")
    _outside_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    decoding_options(parser)


def recognize_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("images", nargs="+", help="image files, folders, or - for an image or a list of paths on stdin")
    _checkpoint_option(parser)
    _trust_option(parser)
    _bounds_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument("--characters", action="store_true", help="with --json: each character's confidence and place")
    decoding_options(parser)


def demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FOLDER", help="folder of the comparison; default: a new one, runs/demo")
    _set_option(parser)


def centers_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["estimate"], help="estimate: mean features over lines recognised exactly")
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder of a trained recogniser")
    parser.add_argument("--data", metavar="FILE", help="label file; default: the run's training set")
    parser.add_argument("--out", metavar="FILE", help="file to write; default: centers.safetensors in the run folder")
    _checkpoint_option(parser)
    _trust_option(parser)
    parser.add_argument("--skip-bad", action="store_true", help="leave out, counted, what the audit finds")
    _outside_option(parser)


def parity_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder, whose weights both sides take")
    _checkpoint_option(parser)
    _trust_option(parser)
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"], help="float64 is the default")
    parser.add_argument(
        "--presets", metavar="NAMES", help="presets to step with, as in ctc,flow1, or none; default: all, and the run's"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def lookalikes_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    mine = actions.add_parser("mine", help="find groups of look-alikes", description="Find groups of look-alikes.")
    mine.add_argument(
        "--charset", metavar="FILE", help="one character a line; default: the run's, or the embedded atlas's"
    )
    mine.add_argument(
        "--fonts", metavar="FOLDER", help="compare glyphs of these fonts; 'system' or 'embedded' for those"
    )
    mine.add_argument(
        "--table", action="append", default=[], metavar="FILE", help="take pairs of a published table, too"
    )
    mine.add_argument("--run", metavar="RUN", help="take what a run confuses, too, reading --data")
    _trust_option(mine)
    mine.add_argument("--data", metavar="FILE", help="label file for --run; default: the run's validation set")
    mine.add_argument("--least", type=int, default=2, metavar="N", help="confusions that make a pair; default: 2")
    mine.add_argument(
        "--similarity",
        type=float,
        default=0.8,
        metavar="X",
        help="of glyphs, 1 is the same; higher finds fewer; default: 0.8",
    )
    mine.add_argument("--largest", type=int, default=6, metavar="N", help="characters of a group at most; default: 6")
    mine.add_argument("--out", required=True, metavar="FILE", help="text file to write: one group a line")
    mine.add_argument("--picture", metavar="FILE", help="draw the groups as an image")
    mine.add_argument(
        "--skip-bad", action="store_true", help="leave out, counted, images of --data that cannot be read"
    )
    _outside_option(mine)
    tune = actions.add_parser("tune", help="find the weight of distances to centers",
                              description="Read validation lines with several weights of --rescore. The best leaves "
                              "the fewest edits, of several the smallest. Groups say which characters may be "
                              "exchanged, and are scored.")  # fmt: skip
    tune.add_argument("run", help="run folder")
    tune.add_argument("--data", metavar="FILE", help="label file; default: the run's validation set")
    _rescoring_options(tune)
    tune.add_argument("--weights", type=float, nargs="+", default=list(WEIGHTS), metavar="X", help="to try; default: "
                      + " ".join(f"{w:g}" for w in WEIGHTS))  # fmt: skip
    _checkpoint_option(tune)
    tune.add_argument("--skip-bad", action="store_true", help="leave out, counted, images that cannot be read")
    _outside_option(tune)
    tune.add_argument("--json", action="store_true", help="print JSON")
    decoding_options(tune, tuned=True)
    score = actions.add_parser(
        "score", help="score predictions of any program", description="Score what was read, character by character."
    )
    score.add_argument(
        "--predictions",
        required=True,
        metavar="FILE",
        help="path<TAB>prediction<TAB>truth a line, as 'evaluate --predictions' writes, or index [prediction] [truth]",
    )
    _groups_option(score)
    score.add_argument("--most", type=int, default=20, metavar="N", help="confusions to show; default: 20")
    score.add_argument("--json", action="store_true", help="print JSON")


def data_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    summaries = {
        "audit": "look at every line, as training does",
        "convert": "write any data set as LMDB or ArrayRecord",
    }
    for name, summary in summaries.items():
        sub = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument("source", help="label file, LMDB, ArrayRecord, folder, labels.csv, or JSON of mmocr or docTR")
        if name == "convert":
            sub.add_argument("out", help="folder to write; one of a stopped conversion is gone on with")
            sub.add_argument("--format", default="lmdb", choices=["lmdb", "arrayrecord"], help="lmdb is the default")
            sub.add_argument(
                "--shard-lines",
                type=int,
                default=10_000,
                metavar="N",
                help="lines of an ArrayRecord file; default: 10000",
            )
            sub.add_argument("--skip-bad", action="store_true", help="leave out, counted, images that cannot be read")
        sub.add_argument("--charset", metavar="FILE", help="one character a line; default: those of the labels")
        sub.add_argument("--config", metavar="FILE", help="YAML file, for the model and the limits of images")
        _set_option(sub)


def convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", help="of PyTorch (.pth, .pt) or safetensors: crnn.pytorch, deep-text-recognition-benchmark, "
        "EasyOCR, GitYCC's, a sequential one, or torch_ref's",
    )  # fmt: skip
    parser.add_argument(
        "--charset", required=True, metavar="FILE", help="one character a line, in the order of classes"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="run folder to make")
    parser.add_argument(
        "--blank", default="first", choices=["first", "last"], help="where the blank is; last is moved; default: first"
    )
    for name, default, what in (("height", 32, "rows of the images"),
                                ("width", 0, "stretch images to this width; 0 keeps the ratio")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    for name, value in (("black", -1.0), ("white", 1.0)):
        parser.add_argument(
            f"--{name}", type=float, default=value, metavar="X", help=f"what a {name} pixel is; default: {value:g}"
        )
    parser.add_argument(
        "--pools", default="", metavar="LIST", help="of a sequential model, as in 2x2,2x2,-,2x1,4x1; default: a guess"
    )


def export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder, or one that was exported as safetensors")
    parser.add_argument(
        "--format", required=True, choices=["safetensors", "stablehlo", "onnx", "torch", "crnn.pytorch", "original"],
        help="safetensors: a folder for a model hub; torch: torch_ref's state dict; original: of a converted run",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="PATH", help="folder to make, or file of a state dict")
    _checkpoint_option(parser)
    _trust_option(parser)


def compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", help="YAML file: config, start, arms, seeds, tests")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="of the comparison; a stopped one is gone on with"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out, counted, rows that cannot be used")
    _trust_option(parser)  # as everywhere; what the plan itself names is trusted without it
    _set_option(parser)


def report_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="run folder, or a comparison's")
    parser.add_argument("--out", metavar="FILE", help="page to write; default: report.html in the folder")
    parser.add_argument("--data", metavar="FILE", help="lines to read for it; default: the validation or test set")
    parser.add_argument(
        "--groups", metavar="FILE", help="look-alike groups; default: the comparison's, or the package's"
    )
    parser.add_argument(
        "--projector", metavar="FOLDER", help="also write features for TensorBoard's embedding projector"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out, counted, images that cannot be read")
    _outside_option(parser)
    _checkpoint_option(parser, default=None)  # a comparison has none to choose
    _trust_option(parser)


def bench_options(parser: argparse.ArgumentParser) -> None:
    sizes = (("batch", 32, "lines"), ("width", 280, "pixels"), ("classes", 6941, "classes"),
             ("slots", 10, "characters"), ("hidden", 256, "size of an LSTM direction"))  # fmt: skip
    for name, default, what in sizes:
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; default: {default}")
    parser.add_argument("--backbone", default="vgg", metavar="NAME", help="the model's; default: vgg")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32 (the default) or bfloat16")
    parser.add_argument("--lstm", default="scan", metavar="NAME", help="scan (the default) or cudnn, on NVIDIA GPUs")
    parser.add_argument("--data", default="", metavar="FILE", help="label file to read from; default: rendered lines")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of every variant; default: 5")
    parser.add_argument("--only", metavar="CASES", help="product, step, flows, forward, backbone, bilstm, ctc, head, "
                        "center, latency, data, evaluate, recognize, cold; with commas; flows only here")  # fmt: skip
    parser.add_argument("--grow", action="store_true", help="ctc, head and center with 100 to 90,112 classes too; "
                        "steps with other batches and widths")  # fmt: skip
    parser.add_argument("--compile", action="store_true", help="torch.compile, too, which takes a minute")
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="leave the PyTorch reference out")
    parser.add_argument("--out", metavar="FILE", help="write everything as JSON")


def plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="KIND:SHAPE", help="v4, v5e, v5p or v6e and a topology, such as v5e:2x2 or "
                        "v5e:16x16 (needs the extra 'tpu', no TPU); default: the devices of this machine")  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="YAML file, as for train")
    _set_option(parser)
    parser.add_argument("--charset", metavar="FILE", help="for the number of classes")
    for name, default, what in (("classes", 6941, "C, without a charset"), ("width", 280, "W in pixels"),
                                ("slots", 10, "L, label slots")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; {default} by default")
    parser.add_argument("--out", metavar="FILE", help="write everything as JSON")


def doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def completion_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="whose script to print")
