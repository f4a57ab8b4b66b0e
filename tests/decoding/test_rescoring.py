"""Look-alike rescoring, against the rule written out character by character."""

import json

import jax
import numpy as np
import pytest

from jaxcrnn import decode
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.decoding import rescoring
from jaxcrnn.decoding.decoder import Decoder
from jaxcrnn.decoding.evaluate import recognize
from jaxcrnn.runs import center_files, config
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.folder import CENTERS, create, open_run
from jaxcrnn.train import init_state
from jaxcrnn.types import CenterState

CHARSET, LAST = Charset("abcdef"), Charset("abcdef", "last")
GROUPS = ["abc", "de"]
SETTINGS = ["model.backbone=tiny", "model.hidden=8", "data.buckets=1", "data.batch_size=8", "loss.preset=flow1"]
B, T, C, D = 40, 12, 7, 3
LENGTHS = np.asarray([T, T - 4, 1, 0] * (B // 4), np.int32)
rescore = jax.jit(rescoring.rescore, static_argnames="blank")


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
    found = np.asarray(rescore(logits, LENGTHS, features, made))
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
        for old, new in zip(before, read(rescore(logits, LENGTHS, features, made)), strict=True):
            assert len(old) == len(new)
            for a, b in zip(old, new, strict=True):
                assert a == b or any(a in group and b in group for group in GROUPS)
                exchanged += a != b
    assert exchanged > 20


def test_the_blank_may_be_last():
    """Its classes moved, everything is as with the blank first."""
    logits, features, centers = case(1)
    first = rescore(logits, LENGTHS, features, rescoring.make(centers, GROUPS, CHARSET, 0.5))
    moved = centers._replace(centers=np.roll(centers.centers, -1, 0))
    made = rescoring.make(moved, GROUPS, LAST, 0.5)
    last = rescore(np.roll(logits, -1, 2), LENGTHS, features, made, blank=C - 1)
    np.testing.assert_allclose(np.roll(last, 1, 2), first, atol=1e-5)


def test_centers_far_away_leave_finite_numbers():
    logits, features, centers = case(2)
    far = centers._replace(centers=centers.centers * 1e30)
    made = rescoring.make(far, GROUPS, CHARSET, rescoring.MOST)
    assert np.isfinite(rescore(logits, LENGTHS, features, made)).all()


def test_classes_never_seen_are_left_alone_unless_none_was_counted():
    _, _, centers = case(0)
    counts = np.asarray([9, 1, 0, 2, 0, 0, 0], np.float32)
    assert rescoring.pairs(rescoring.make(centers._replace(counts=counts), [*GROUPS, "xy"], CHARSET, 1)) == 1
    assert rescoring.pairs(rescoring.make(centers._replace(counts=counts * 0), GROUPS, CHARSET, 1)) == 4


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run never trained, its centers, lines it reads badly, and groups of digits."""
    folder, digits = tmp_path_factory.mktemp("run"), Charset("0123456789")
    run = create(folder / "run", config.load(overrides=SETTINGS), digits, {})
    state = init_state(run.train_config, jax.random.key(0))
    rng = np.random.default_rng(0)
    head = state.params["head"]  # sharp, or no search ends where greedy reading does
    state = state._replace(params=state.params | {"head": head | {"kernel": head["kernel"] * 30}})
    state = state._replace(centers=CenterState(rng.normal(size=state.centers.centers.shape).astype(np.float32),
                                               np.ones(11, np.float32)))  # fmt: skip
    with Checkpoints(run.folder / "checkpoints") as checkpoints:
        checkpoints.save(state, {}, None)
    center_files.save(folder / "centers.safetensors", state.centers, digits)
    other = CenterState(rng.normal(size=(11, run.config.model.features)).astype(np.float32), np.ones(11, np.float32))
    center_files.save(folder / "other.safetensors", other, digits)
    (folder / "groups.txt").write_text("0123456789\n")
    (folder / "letters.txt").write_text("ab\n")
    return folder


def test_tuning_and_reading_with_what_it_found(run_folder, lines_file, capsys):
    """The last row of its labels is broken: with --json faults are told elsewhere."""
    run, groups = str(run_folder / "run"), ["--groups", str(run_folder / "groups.txt"), "--skip-bad"]
    rows = lines_file.read_text()
    lines_file = lines_file.with_name("broken.txt")
    lines_file.write_text(rows + "nowhere.png\t1\n")
    tune = ["lookalikes", "tune", run, "--data", str(lines_file), *groups, "--json"]
    assert main([*tune, "--weights", "0", "0.1", "1", "3"]) == 0
    told = json.loads(capsys.readouterr().out)
    edits = {row["weight"]: row["edits"] for row in told["weights"]}
    assert len(set(edits.values())) > 1
    assert edits[told["best"]] == min(edits.values())
    assert not any(count == min(edits.values()) for weight, count in edits.items() if weight < told["best"])
    again = ["evaluate", run, "--data", str(lines_file), "--json", "--predictions", str(run_folder / "p.txt"), *groups]
    found, texts = [], []
    for weight, more in ((told["best"], []), (100, []), (100, ["--centers", str(run_folder / "other.safetensors")])):
        assert main([*again, "--rescore", str(weight), *more]) == 0
        found.append(json.loads(capsys.readouterr().out)["rules"]["exact"]["edits"])
        texts.append((run_folder / "p.txt").read_text())
    assert found[0] == edits[told["best"]]
    assert texts[1] != texts[2]
    assert main([*tune[:-1], "--weights", "0", str(told["best"])]) == 0
    out = capsys.readouterr().out
    assert f"fewest edits, {found[0]} ({edits[0]} without): --rescore {told['best']:g}" in out


@pytest.mark.slow
def test_the_beam_sees_what_was_rescored(run_folder):
    run = open_run(run_folder / "run")
    state, _ = run.state()
    made = rescoring.make(state.centers, ["0123456789"], run.charset, 100.0)
    images = [(str(i), np.random.default_rng(i).integers(0, 255, (32, 64), np.uint8)) for i in range(8)]
    options = {"width": 8}, {"width": 8, "rescorer": made}, {"width": 1, "rescorer": made}
    plain, beam, greedy = (
        [line.text for line in recognize(run.train_config, state, run.charset, images, decoder=Decoder(**o))]
        for o in options
    )
    assert any(two == three != one for one, two, three in zip(plain, beam, greedy, strict=True))


@pytest.mark.slow
def test_a_weight_of_zero_changes_nothing(run_folder):
    """Not the confidence either, that of an empty reading included."""
    run = open_run(run_folder / "run")
    state, _ = run.state()
    bias = np.asarray(state.params["head"]["bias"])
    silent = state.params | {"head": state.params["head"] | {"bias": bias + np.float32(99) * (np.arange(11) == 0)}}
    images = [(str(i), np.random.default_rng(i).integers(0, 255, (32, 64), np.uint8)) for i in range(3)]
    decoder = Decoder(1, rescorer=rescoring.make(state.centers, ["0123456789"], run.charset, 0.0))
    for params in (state.params, silent):
        changed = state._replace(params=params)
        one, two = (list(recognize(run.train_config, changed, run.charset, images, decoder=d)) for d in (None, decoder))
        assert [line.text for line in one] == [line.text for line in two]
        np.testing.assert_allclose([x.confidence for x in one], [x.confidence for x in two], rtol=1e-4)
    assert not any(line.text for line in two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--groups", "{groups}"], "--groups is for --rescore; expected --rescore X"),
        (["--centers", "{centers}"], "--centers is for --rescore"),
        (["--rescore", "-1"], "--rescore -1: expected 0 to 1e+06"),
        (["--rescore", "nan"], "--rescore nan: expected 0 to 1e+06"),
        (["--rescore", "1e39"], "--rescore 1e+39: expected 0 to 1e+06"),
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


def test_wrong_tuning_gets_one_line(run_folder, lines_file, tmp_path, capsys):
    tune = ["lookalikes", "tune", str(run_folder / "run"), "--data", str(lines_file)]
    assert main([*tune, "--weights", "1", "-1"]) == 2
    assert "--weights -1 1: expected numbers from 0 to 1e+06" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*tune, "--rescore", "1"])
    capsys.readouterr()
    plain = create(tmp_path / "plain", config.load(overrides=SETTINGS[:-1]), Charset("0123456789"), {})
    with Checkpoints(plain.folder / "checkpoints") as checkpoints:
        checkpoints.save(init_state(plain.train_config, jax.random.key(0)), {}, None)
    tune[2] = str(plain.folder)
    assert main(tune) == 2
    assert "trained without centers; make some with 'jaxcrnn centers estimate --run" in capsys.readouterr().err
    (plain.folder / CENTERS).write_bytes((run_folder / "centers.safetensors").read_bytes())
    groups = ["--groups", str(run_folder / "groups.txt"), "--weights", "0", "1"]
    assert main([*tune, *groups]) == 0
