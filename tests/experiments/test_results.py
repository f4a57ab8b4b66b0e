"""What a comparison says, from made-up predictions; charts and pages, piece by piece."""

import json
import re
import shutil

import numpy as np
import pytest

from jaxcrnn.data.predictions import Predictions, write_predictions
from jaxcrnn.experiments import results
from jaxcrnn.experiments.bootstrap import Interval
from jaxcrnn.report import charts
from jaxcrnn.report import html as page
from jaxcrnn.report.features import plane, separation


def made_up(tmp_path, arms, seeds=(0, 1, 2), lines=80):
    """A comparison's folder with predictions alone: each arm misreads a share of the look-alikes."""
    rng = np.random.default_rng(0)
    # Each place has a group of its own, so that no misread line is shorter to explain by a shift.
    truths = ["".join(rng.choice(list(pair)) for pair in ("未末", "土士", "日曰", "人入")) for _ in range(lines)]
    facts = {"baseline": "ctc", "seeds": list(seeds), "arms": list(arms), "tests": {"lookalike": "x"}}
    (tmp_path / "comparison.json").write_text(json.dumps(facts))
    (tmp_path / "groups.txt").write_text("未末\n土士\n日曰\n人入\n", encoding="utf-8")
    other = dict(zip("未末土士日曰人入", "末未士土曰日入人", strict=True))
    for arm, share in arms.items():
        for seed in seeds:
            wrong = np.random.default_rng([seed, 8]).random((lines, 4)) < share
            read = [
                "".join(other[c] if w else c for c, w in zip(t, row, strict=True))
                for t, row in zip(truths, wrong, strict=True)
            ]
            folder = tmp_path / arm / f"seed-{seed}"
            folder.mkdir(parents=True)
            write_predictions(folder / "lookalike.txt", Predictions([str(i) for i in range(lines)], read, truths))
    return tmp_path


@pytest.mark.slow
def test_verdicts_and_warnings(tmp_path):
    compared = results.collect(made_up(tmp_path, {"ctc": 0.2, "same": 0.2, "good": 0.05, "bad": 0.5}))
    verdicts = dict(s.split(": ", 1) for s in compared.sentences())
    assert verdicts["same"].startswith("not distinguishable: read as a look-alike on lookalike (+0.00 [+0.00, +0.00])")
    assert verdicts["good"].startswith("better: read as a look-alike on lookalike (-1")
    assert verdicts["bad"].startswith("worse: read as a look-alike on lookalike (+")
    rated = compared.arms["lookalike"]["ctc"]["substituted"]
    assert rated.of == 3 * 80 * 4
    assert rated.rate.low < 0.2 < rated.rate.high
    assert compared.warnings() == [
        "Differences are in percentage points, with 95 % intervals of a paired bootstrap over lines and seeds."
    ]
    assert "recall" in results.SHOWN  # who reads nothing takes nothing for its look-alike
    # Seeds that only one of both has are no pairs.
    shutil.rmtree(tmp_path / "ctc" / "seed-2")
    assert results.collect(tmp_path).seeds == {"ctc": 2, "same": 2, "good": 2, "bad": 2}
    shutil.rmtree(tmp_path / "same" / "seed-0")
    few = results.collect(tmp_path)
    assert few.seeds["same"] == 1
    # Of the seed that both have, with which they read alike; the rates are those of all seeds of each.
    assert few.arms["lookalike"]["same"]["substituted"].gain == (0, 0, 0)
    assert "is compared on the shared seeds only" in " ".join(few.warnings())
    assert "this proves nothing" in " ".join(few.warnings())
    assert few.missing == 2
    # One seed proves nothing, and says so; arms with fewer seeds are paired with what both have.
    shutil.rmtree(tmp_path / "good" / "seed-1")
    assert results.collect(tmp_path).missing == 3
    for seed in (1, 2):
        for arm in ("ctc", "same", "good", "bad"):
            shutil.rmtree(tmp_path / arm / f"seed-{seed}", ignore_errors=True)
    assert "another seed may give the opposite result, so this proves nothing" in " ".join(
        results.collect(tmp_path).warnings()
    )


def test_run_without_all_predictions_is_missing(tmp_path):
    folder = made_up(tmp_path, {"ctc": 0.2, "x": 0.1}, seeds=(0, 1), lines=10)
    facts = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(facts | {"tests": {"lookalike": "x", "full": "y"}}))
    for path in folder.glob("*/seed-*/lookalike.txt"):
        shutil.copy(path, path.with_name("full.txt"))
    assert results.collect(folder, replicates=50).missing == 0
    (folder / "x" / "seed-1" / "full.txt").unlink()
    compared = results.collect(folder, replicates=50)
    assert compared.missing == 1
    assert compared.seeds == {"ctc": 2, "x": 1}
    assert "1 run has not finished." in compared.warnings()


def test_arm_with_other_data_is_compared_with_its_own_baseline(tmp_path):
    folder = made_up(tmp_path, {"ctc": 0.5, "ctc-pairs": 0.2, "pair": 0.2}, lines=20)
    facts = json.loads((folder / "comparison.json").read_text())
    (folder / "comparison.json").write_text(json.dumps(facts | {"against": {"pair": "ctc-pairs"}}))
    compared = results.collect(folder, replicates=200)
    gains = {arm: rated["substituted"].gain for arm, rated in compared.arms["lookalike"].items()}
    assert gains["ctc"] is None
    assert gains["ctc-pairs"].value < -0.2
    assert gains["pair"] == (0, 0, 0)
    assert compared.sentence("pair").startswith("compared with ctc-pairs, not distinguishable: ")
    assert "+0.00 [+0.00, +0.00] vs ctc-pairs" in compared.text()


def test_many_intervals_give_a_warning(tmp_path):
    """Three are judged for each arm."""
    folder = made_up(tmp_path, {"ctc": 0.2, **{f"arm{i}": 0.1 for i in range(7)}}, seeds=(0,), lines=10)
    warnings = " ".join(results.collect(folder, replicates=50).warnings())
    assert "Of 21 intervals of 95 %, about 1 are expected to exclude 0 by chance." in warnings


def test_median_speed_of_an_arm(tmp_path):
    """Steps a second, from lines a second and how many a step has; rows without them say nothing."""
    folder = made_up(tmp_path, {"ctc": 0.2, "x": 0.1}, seeds=(0, 1), lines=10)
    rows = [[(2, 40, 8), (4, 80, 8), (6, 120, 8)], [(10, 400, 40), (11, None, None), (20, 500, 40)]]
    for seed, of_seed in enumerate(rows):
        log = [{"step": step, "images_per_second": speed, "samples": samples} for step, speed, samples in of_seed]
        text = "".join(json.dumps({k: v for k, v in row.items() if v}) + "\n" for row in log)
        (folder / "ctc" / f"seed-{seed}" / "metrics.jsonl").write_text(text)
    compared = results.collect(folder, replicates=50)
    assert compared.speeds == {"ctc": 30.0}  # of 10, 20, 30, 100 and 125
    head, table = compared.rows("lookalike")
    assert head[-1] == "steps/s"
    assert [row[-1] for row in table] == ["30.00", ""]


def test_predictions_for_other_lines_are_rejected(tmp_path):
    made_up(tmp_path, {"ctc": 0.2, "other": 0.2}, seeds=(0,))
    path = tmp_path / "other" / "seed-0" / "lookalike.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("0\t", "99\t", 1), encoding="utf-8")
    with pytest.raises(Exception, match="predictions for other lines than in the other runs"):
        results.collect(tmp_path)


HOSTILE = '<script>alert("x")</script>'


def test_labels_are_escaped_in_html():
    made = [
        page.page(HOSTILE, page.text(HOSTILE), [page.Section("a", HOSTILE, page.bullets([HOSTILE]))]),
        page.table([HOSTILE], [[HOSTILE]], HOSTILE),
        page.picture(np.zeros((2, 2), np.uint8), HOSTILE, "line"),
        page.charts([(HOSTILE, "")]),
        charts.line_chart({HOSTILE: [(0, 1), (1, 2)]}, title=HOSTILE, x_label=HOSTILE, y_label=HOSTILE),
        charts.scatter([(0, 0, HOSTILE, 1)], title=HOSTILE),
        charts.intervals({HOSTILE: (0.1, 0.0, 0.2)}, title=HOSTILE, x_label=HOSTILE),
        page.subheading(HOSTILE),
        page.details(HOSTILE, page.text(HOSTILE)),
    ]
    for html in made:
        assert "<script" not in html
        assert 'alert("' not in html


def test_chart_coordinates_match_the_data():
    chart = charts.line_chart({"a": [(0, 0.0), (10, 1.0), (5, float("nan"))]}, title="t", x_label="x", y_label="y")
    (points,) = re.findall(r'points="([^"]*)"', chart)
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in points.split())
    assert (x0, y0) == (charts.LEFT, charts.HEIGHT - charts.BOTTOM)
    assert (x1, y1) == (charts.WIDTH - charts.RIGHT, charts.TOP)
    assert "nothing to draw" in charts.line_chart({"a": []}, title="t", x_label="x", y_label="y")
    bars = charts.intervals({"up": (0.02, 0.01, 0.03)}, title="t", x_label="x")
    low, high = (float(re.search(rf'class="bar" .*?{k}="([\d.]+)"', bars).group(1)) for k in ("x1", "x2"))
    axis = float(re.search(r'class="axis" x1="([\d.]+)"', bars).group(1))
    assert axis < low < high


def test_interval_bounds_are_plain_floats(tmp_path):
    compared = results.collect(made_up(tmp_path, {"ctc": 0.2, "x": 0.1}, seeds=(0, 1)))
    compared.save(tmp_path / "r.json")
    read = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    gain = Interval(*read["arms"]["lookalike"]["x"]["substituted"]["gain"])
    assert gain.low < gain.value < gain.high < 0


def test_feature_maps_preserve_distances():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 6))
    turned = vectors @ np.linalg.qr(rng.normal(size=(6, 6)))[0] * 3 + 1
    one, two = plane([vectors, turned])
    np.testing.assert_allclose(one, two, atol=1e-9)  # the same but for axes, scale and place
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    drawn = np.linalg.norm(one[:, None] - one[None], axis=-1)
    np.testing.assert_allclose(drawn / drawn[0, 1], distances / distances[0, 1], rtol=1e-6)
    classes = np.repeat([1, 2, 3], 30)
    points = np.asarray([[0.0, 0], [4, 0], [0, 9]])[classes - 1] + rng.normal(size=(90, 2))
    # Means 4 apart, the root mean square distance to them sqrt(2).
    assert separation(points, classes, [[1, 2]]) == pytest.approx(4 / np.sqrt(2), rel=0.15)
    assert separation(points, classes, [[1, 3]]) > 2 * separation(points, classes, [[1, 2]])
    assert separation(points, classes, [[7, 8]]) == 0
