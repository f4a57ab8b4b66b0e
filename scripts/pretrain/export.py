"""Joins the weights that train.py wrote into a folder that `jaxcrnn.load` reads.

python scripts/pretrain/export.py TRAINED CHARSET OUT    # CHARSET: charset.txt of the folder that atlas.py wrote
"""

import argparse
from pathlib import Path

from train import model_of, weights_in

from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits
from jaxcrnn.interop.exporters import to_safetensors
from jaxcrnn.interop.recognizer import Recognizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, help="folder with model-*.safetensors")
    parser.add_argument("charset", type=Path, help="characters in the order of their classes, one a line")
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()
    charset = Charset.from_file(args.charset)
    model = model_of(charset.num_classes)
    reader = Recognizer(model, weights_in(args.trained, model), charset, Limits())
    print(f"{args.out}: {to_safetensors(reader, args.trained, args.out)}")


if __name__ == "__main__":
    main()
