"""Look-alike rescoring, against the rule written out character by character."""

import json

import jax
import numpy as np
import pytest

from jaxcrnn import center_files, config, decode, rescoring, runs
from jaxcrnn.charset import Charset
from jaxcrnn.checkpoint import Checkpoints
from jaxcrnn.cli import main
from jaxcrnn.train import init_state
from jaxcrnn.types import CenterState

CHARSET = Charset("abcdef")
GROUPS = ["abc", "de"]
B, T, C, D = 40, 12, 7, 3
LENGTHS = np.asarray([T, T - 4, 1, 0] * (B // 4), np.int32)


def case(seed, sharp=2.0):
    rng = np.random.default_rng(seed)
    logits, features = rng.normal(size=(B, T, C)) * sharp, rng.normal(size=(B, T, D))
    centers = CenterState(rng.normal(size=(C, D)).astype(np.float32), np.ones(C, np.float32))
    return logits.astype(np.float32), features.astype(np.float32), centers


def read(logits, lengths=LENGTHS):
    ids, counts = jax.device_get(decode.greedy(logits, lengths))
    return ["".join(CHARSET.decode(row[:n].tolist())) for row, n in zip(ids, counts, strict=True)]


def by_hand(log_p, length, feature, centers, weight):
    """The rescored log probabilities of one line, one character after another."""
    group = {c: k for k, g in enumerate(GROUPS) for c in CHARSET.encode(g)}
    best = log_p[:length].argmax(1)
    out, found, t = log_p.copy(), [], 0
    while t < length:
        end = t
        while end < length and best[end] == best[t]:
            end += 1
        if best[t]:
            peak = max(range(t, end), key=lambda i: (log_p[i, best[t]], i))
            rival = max((k for k in range(1, C) if k != best[t]), key=lambda k: log_p[peak, k])
            found.append((t, end, peak, int(best[t]), rival))
        t = end
    for number, (start, end, peak, own, rival) in enumerate(found):
        beside = [f for f in found[max(number - 1, 0) : number + 2] if f[1] == start or f[0] == end]
        if any(rival in f[3:] for f in beside) or group.get(own, -1) != group.get(rival, -2):
            continue
        far = [float(np.sum((feature[peak] - centers[k]) ** 2)) for k in (own, rival)]
        sure = log_p[peak, own] - log_p[peak, rival] - weight * (far[0] - far[1])
        for t in range(start, end):
            odds = log_p[t, own] - log_p[t, rival] - weight * (far[0] - far[1])
            odds = odds if (odds >= 0) == (sure >= 0) else sure
            out[t, own], out[t, rival] = log_p[t, own] + min(odds, 0), log_p[t, own] - max(odds, 0)
    return out


@pytest.mark.parametrize("weight", [0.0, 0.05, 0.5, 5.0])
def test_the_rule_written_out_agrees(weight):
    logits, features, centers = case(0)
    made = rescoring.make(centers, GROUPS, CHARSET, weight)
    found = np.asarray(jax.jit(rescoring.rescore)(logits, LENGTHS, features, made))
    log_p = np.asarray(jax.nn.log_softmax(logits, 2))
    for b in range(B):
        expected = by_hand(log_p[b], LENGTHS[b], features[b], centers.centers, weight)
        np.testing.assert_allclose(found[b], expected, atol=1e-4)
    changed = np.abs(found - log_p).max() > 1e-3
    assert changed == bool(weight)


@pytest.mark.parametrize("seed", range(5))
def test_a_character_stays_or_becomes_its_look_alike(seed):
    logits, features, centers = case(seed, sharp=0.5)
    before, exchanged = read(logits), 0
    for weight in (0.01, 0.1, 1.0, 100.0):
        made = rescoring.make(centers, GROUPS, CHARSET, weight)
        for old, new in zip(before, read(rescoring.rescore(logits, LENGTHS, features, made)), strict=True):
            assert len(old) == len(new)
            for a, b in zip(old, new, strict=True):
                assert a == b or any(a in group and b in group for group in GROUPS)
                exchanged += a != b
    assert exchanged > 20


def test_classes_never_seen_are_left_alone_unless_none_was_counted():
    _, _, centers = case(0)
    counts = np.asarray([9, 1, 0, 2, 0, 0, 0], np.float32)
    assert rescoring.pairs(rescoring.make(centers._replace(counts=counts), [*GROUPS, "xy"], CHARSET, 1)) == 1
    assert rescoring.pairs(rescoring.make(centers._replace(counts=counts * 0), GROUPS, CHARSET, 1)) == 4


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run never trained, its centers, lines it reads badly, and groups of digits."""
    folder, digits = tmp_path_factory.mktemp("run"), Charset("0123456789")
    settings = ["model.backbone=tiny", "model.hidden=8", "loss.preset=flow1", "data.buckets=1", "data.batch_size=8"]
    run = runs.create(folder / "run", config.load(overrides=settings), digits, {})
    state = init_state(run.train_config, jax.random.key(0))
    rng = np.random.default_rng(0)
    state = state._replace(centers=CenterState(rng.normal(size=state.centers.centers.shape).astype(np.float32),
                                               np.ones(11, np.float32)))  # fmt: skip
    with Checkpoints(run.folder / "checkpoints") as checkpoints:
        checkpoints.save(state, {}, None)
    center_files.save(folder / "centers.safetensors", state.centers, digits)
    (folder / "groups.txt").write_text("0123456789\n")
    (folder / "letters.txt").write_text("ab\n")
    return folder


def test_tuning_and_reading_with_what_it_found(run_folder, lines_file, capsys):
    run, groups = str(run_folder / "run"), ["--groups", str(run_folder / "groups.txt")]
    tune = ["lookalikes", "tune", run, "--data", str(lines_file), *groups, "--json"]
    assert main([*tune, "--weights", "0", "0.1", "1", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    edits = {row["weight"]: row["edits"] for row in told["weights"]}
    assert len(set(edits.values())) > 1
    assert edits[told["best"]] == min(edits.values())
    assert not any(count == min(edits.values()) for weight, count in edits.items() if weight < told["best"])
    again = ["evaluate", run, "--data", str(lines_file), "--json", "--rescore", str(told["best"]), *groups]
    for more in ([], ["--centers", str(run_folder / "centers.safetensors")]):
        assert main([*again, *more]) == 0
        assert json.loads(capsys.readouterr().out)["rules"]["exact"]["edits"] == edits[told["best"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--groups", "{groups}"], "--groups is for --rescore; expected --rescore X"),
        (["--centers", "{centers}"], "--centers is for --rescore"),
        (["--rescore", "-1"], "--rescore -1.0: expected 0 or more"),
        (["--rescore", "inf"], "--rescore inf: expected 0 or more"),
        (["--rescore", "1", "--centers", "{none}"], "no such file; expected centers made by"),
        (["--rescore", "1", "--groups", "{none}"], "expected a readable UTF-8 text file"),
        (["--rescore", "1", "--groups", "{letters}"], "no group has two characters with centers here"),
    ],
)
def test_wrong_options_get_one_line(options, message, run_folder, lines_file, capsys):
    names = {name: run_folder / f"{name}.txt" for name in ("groups", "letters", "none")}
    names["centers"] = run_folder / "centers.safetensors"
    given = [option.format(**names) for option in options]
    assert main(["evaluate", str(run_folder / "run"), "--data", str(lines_file), *given]) == 2
    assert message in capsys.readouterr().err
