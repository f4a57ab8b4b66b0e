"""What `fuzz.py` damages of the files that come from other programs and go to them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fuzz_targets import CHARSET, Check, _file, damaged
from hypothesis import strategies as st

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError


def doors(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Models of language, exported folders, and checkpoints to convert (PyTorch's too where there is torch)."""
    import jax
    from safetensors.numpy import save

    from jaxcrnn.data.images import Limits
    from jaxcrnn.decoding import automata, ngram
    from jaxcrnn.interop import checkpoint_layouts, exporters, importer, recognizer, state_dicts
    from jaxcrnn.model import ModelConfig
    from jaxcrnn.nn.imported import Imported
    from jaxcrnn.train import TrainConfig, eval_variables, init_state

    charset = Charset(CHARSET)
    ngram.save_ngrams(folder / "m", ngram.train(["012", "0345", "99"], 3))
    model = ModelConfig("4p2x2 6np8x1", 4, 0.0, recurrent="bilstm", num_classes=11, imported=Imported(two_biases=True))
    variables = jax.device_get(eval_variables(init_state(TrainConfig(model), jax.random.key(0))))
    exporters.to_safetensors(recognizer.Recognizer(model, variables, charset, Limits()), folder, folder / "whole")
    names = checkpoint_layouts.Names((("cnn.0", ""), ("cnn.3", "cnn.4")), ("rnn.0",), "fc")
    layout = checkpoint_layouts.Layout("", checkpoint_layouts.fields_of(model), names, [])
    state = checkpoint_layouts.state_of(layout, variables, {"cnn.4.num_batches_tracked": 3})
    importer.converted(state, charset, pools="2x2,8x1")
    weights = [save(state)]
    try:
        state_dicts.write(folder / "w.pth", state)
        weights.append((folder / "w.pth").read_bytes())
    except UserError:
        pass  # without torch

    def convert(path: Path) -> None:
        found = state_dicts.read(path)
        try:
            importer.converted(found, charset, pools="2x2,8x1")
        except (IndexError, TypeError, ValueError, KeyError, AttributeError):  # which the command makes a line of
            raise UserError("shapes that no such model has") from None

    def lm(path: Path) -> None:
        found = automata.of_ngrams(ngram.load_ngrams(path), charset, 0.5)
        automata.score(found, charset.encode("0129"))

    checks = {"m.lm": _file(folder, "m.lm", lm), "weights": _file(folder, "weights", convert)}
    shutil.copytree(folder / "whole", folder / "there")
    for part in (recognizer.CONFIG, recognizer.CHARSET, recognizer.WEIGHTS):

        def check(data: bytes, part: str = part) -> None:
            shutil.copytree(folder / "whole", folder / "there", dirs_exist_ok=True)
            (folder / "there" / part).write_bytes(data)
            recognizer.load(folder / "there")

        checks[part] = check
    whole = {name: [(folder / "whole" / name).read_bytes()] for name in checks if (folder / "whole" / name).exists()}
    whole |= {"m.lm": [(folder / "m").read_bytes()], "weights": weights}
    inputs = st.sampled_from(sorted(whole)).flatmap(lambda name: st.tuples(st.just(name), damaged(whole[name], 3)))
    return inputs, lambda pair: checks[pair[0]](pair[1])
