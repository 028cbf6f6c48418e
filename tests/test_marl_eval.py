"""The layout that InstaDeep's marl-eval reads (checked once by hand against id-marl-eval 0.0.4)."""

from __future__ import annotations

import json
from pathlib import Path

from jaxvff.reports import marl_eval, records, written
from jaxvff.reports.records import Curve
from tests import scores


def curve(folder: Path, *args, **options) -> Curve:
    return records.curve(folder, records.of(scores.result(folder, *args, **options)))


def test_a_run_is_environment_task_algorithm_seed_and_step(tmp_path: Path) -> None:
    document = marl_eval.document([curve(tmp_path)])
    runs = document["smax"]["3m"]["qmix"]
    assert list(runs) == ["seed_0", "seed_1", "seed_2", "seed_3"]
    for seed, run in enumerate(runs.values()):
        assert list(run) == ["step_0", "step_1", "step_2", "absolute_metrics"]
        for report in range(3):
            wins = scores.score(report, seed)
            assert run[f"step_{report}"] == {
                "step_count": (report + 1) * 100 - seed,
                "return": [20 * wins],
                "win_rate": [wins],
            }


def test_absolute_metrics_are_those_of_the_last_evaluation(tmp_path: Path) -> None:
    (run, *_) = marl_eval.document([curve(tmp_path)])["smax"]["3m"]["qmix"].values()
    assert run["absolute_metrics"] == {k: run["step_2"][k] for k in ("return", "win_rate")}


def test_algorithms_of_one_task_stand_side_by_side(tmp_path: Path) -> None:
    curves = [
        curve(tmp_path / "0", "qmix", {"method": "qmix", "lr": 0.1}),
        curve(tmp_path / "1", "vdn", {"method": "vdn", "lr": 0.1}),
        curve(tmp_path / "2", "vdn", {}, {"kind": "jaxmarl", "name": "MPE_simple_spread_v3"}),
    ]
    document = marl_eval.document(curves)
    assert list(document["smax"]["3m"]) == ["qmix, lr=0.1", "vdn, lr=0.1"]
    assert list(document["jaxmarl"]["mpe_simple_spread_v3"]) == ["vdn"]  # lower case, as it reads


def test_a_stopped_seed_is_left_out_and_the_file_has_no_null(tmp_path: Path) -> None:
    marl_eval.write([curve(tmp_path, stopped=(1,))], tmp_path)
    text = (tmp_path / "marl_eval.json").read_text()
    assert list(json.loads(text)["smax"]["3m"]["qmix"]) == ["seed_0", "seed_2", "seed_3"]
    assert "null" not in text and "NaN" not in text


def test_without_winners_there_is_no_win_rate(tmp_path: Path) -> None:
    (run, *_) = marl_eval.document([curve(tmp_path, winners=False)])["smax"]["3m"]["qmix"].values()
    assert list(run["absolute_metrics"]) == ["return"]


def test_lines_that_did_not_count_env_steps_have_the_nominal_ones(tmp_path: Path) -> None:
    (run, *_) = marl_eval.document([curve(tmp_path, counted=False)])["smax"]["3m"]["qmix"].values()
    assert [run[f"step_{k}"]["step_count"] for k in range(3)] == [100, 200, 300]


def test_a_run_of_several_jobs_has_one_file(tmp_path: Path) -> None:
    methods = ("qmix", "vdn")
    results = [scores.result(tmp_path / m, m, {"method": m}) for m in methods]
    written.write(tmp_path, results)
    assert [p.parent for p in tmp_path.rglob("marl_eval.json")] == [tmp_path]
    document = json.loads((tmp_path / "marl_eval.json").read_text())
    assert list(document["smax"]["3m"]) == ["qmix", "vdn"]
