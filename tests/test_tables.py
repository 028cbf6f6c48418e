"""Records, the terminal tables that are made of them, and the files of a run's results."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxvff.cli import bench
from jaxvff.reports import records, statistics, table1, tables, written
from jaxvff.reports.records import EpisodeRecord, Record, TableRecord
from tests import scores


def printed(*shown: object) -> str:
    console = Console(width=160, file=io.StringIO())
    console.print(*shown)
    return console.file.getvalue()


def results_of(found: Sequence[Record]) -> str:
    console = Console(width=160, file=io.StringIO())
    tables.print_results(console, found)
    return console.file.getvalue()


def cells(text: str, title: str) -> list[str]:
    """The cells of the one row that has a title."""
    (row,) = [line for line in text.splitlines() if title in line]
    return [cell.strip() for cell in row.split("│")[1:-1]]


# Episodes.


def test_the_table_has_the_iqm_and_interval_of_the_record(tmp_path: Path) -> None:
    result = scores.result(tmp_path)
    record = records.of(result)
    assert isinstance(record, EpisodeRecord)
    as_json = record.to_json()
    wins = statistics.interval(result.metrics["test_win_rate"][:, None])
    assert as_json["aggregate"]["test_win_rate"]["iqm"] == pytest.approx(wins.iqm)
    assert as_json["per_seed"]["test_win_rate"] == [scores.score(2, seed) for seed in range(4)]
    assert as_json["env_steps"] == [300, 299, 298, 297]
    row = cells(results_of([record]), "qmix on smax/3m")
    assert f"{wins.iqm:.2f} [{wins.low:.2f},{wins.high:.2f}]" in row
    assert row[-2:] == ["4", "0"]  # seeds, stopped


def test_a_stopped_seed_is_counted_and_in_no_mean(tmp_path: Path) -> None:
    record = records.of(scores.result(tmp_path, stopped=(3,)))
    assert record.stopped == 1
    assert record.to_json()["per_seed"]["test_return"][3] is None
    kept = [scores.score(2, seed) for seed in range(3)]
    assert record.aggregate["test_win_rate"].iqm == pytest.approx(np.mean(kept))
    assert cells(results_of([record]), "qmix on smax/3m")[-2:] == ["4", "1"]


def test_a_run_whose_seeds_all_stopped_shows_a_dash(tmp_path: Path) -> None:
    found = [
        records.of(scores.result(tmp_path / "0", "qmix", stopped=(0, 1, 2, 3))),
        records.of(scores.result(tmp_path / "1", "vdn")),
    ]
    assert cells(results_of(found), "qmix on smax/3m")[2:] == ["-", "-", "4", "4"]


def test_win_rates_are_shown_only_where_someone_can_win(tmp_path: Path) -> None:
    env = {"kind": "jaxmarl", "name": "MPE_simple_spread_v3"}
    text = results_of([records.of(scores.result(tmp_path, env=env, winners=False))])
    assert "qmix on jaxmarl/MPE_simple_spread_v3" in text
    assert "win rate" not in text and "return" in text


# Matrix games.


def test_a_matrix_game_is_reported_by_its_rates_and_the_table_of_the_median_seed(
    tmp_path: Path,
) -> None:
    result = scores.table_result(tmp_path)
    record = records.of(result)
    assert isinstance(record, TableRecord)
    assert record.rates["fit"] == statistics.wilson(3, 4)
    assert record.median_seed.seed == 2  # the errors are 1, .05, .05, .05
    np.testing.assert_array_equal(record.median_seed.q_tot, result.metrics["q_tot"][2])
    text = results_of([record])
    assert "qmix on matrix/a: seed 2, the median by largest error" in text
    fit = statistics.wilson(3, 4)
    expected = f"0.75 ({fit.low:.2f}-{fit.high:.2f})".replace("(0.", "(.").replace("-0.", "-.")
    assert cells(text.split("Share of seeds")[1], "qmix on matrix/a") == [
        "qmix on matrix/a", expected, expected, expected, "4",
    ]  # fmt: skip
    (row,) = [line for line in text.splitlines() if "C(-0.2)" in line and "│" in line]
    true, learned = row.split("C(-0.2)")  # the row of the third action in both grids
    assert true.split() == ["│", "C", "│", "-12.0", "│", "0.0", "│", "0.0", "│", "│"]
    assert learned.split() == ["│", "-11.9", "│", "0.1", "│", "0.1", "│"]


def test_the_json_of_a_record_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    result = scores.table_result(tmp_path)
    metrics = result.metrics | {"regret": np.array([np.nan, 0.0, np.inf, 1.0])}
    as_json = records.of(result._replace(metrics=metrics)).to_json()
    assert as_json["per_seed"]["regret"] == [None, 0.0, None, 1.0]
    assert list(as_json["rates"]["fit"]) == ["successes", "n", "rate", "low", "high"]
    assert list(as_json["median_seed"]) == ["seed", "q_tot", "utilities"]
    json.dumps(as_json, allow_nan=False)


def test_games_of_many_actions_are_listed_by_their_largest_payoffs() -> None:
    true = np.arange(81.0).reshape(9, 9)
    utilities = np.zeros((2, 9))
    utilities[:, 3] = 1
    lines = printed(tables._joint_actions(true, true / 2, utilities, 2)).splitlines()
    rows = [[c.strip() for c in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert rows[0] == ["8 8", "80.00", "40.00"]
    assert rows[-1] == ["3 3", "30.00", "15.00"]
    assert len(rows) == tables.LARGEST_PAYOFFS + 1


def test_a_title_names_method_task_and_what_else_is_swept(tmp_path: Path) -> None:
    sweep = {"method": "vdn", "env": "smax/3m", "lr": 0.1, "method.embed": "x" * 40}
    record = records.of(scores.result(tmp_path, "qmix", sweep))
    assert record.title == f"vdn on smax/3m, lr=0.1, method.embed={'x' * 15}…"
    assert records.task({"kind": "matrix", "game": None, "file": "my.npy"}) == "my.npy"
    assert records.task({"kind": "matrix"}) == "payoff"


# Files.


def test_several_jobs_have_curves_each_and_all_together(tmp_path: Path) -> None:
    methods = ("qmix", "vdn")
    results = [scores.result(tmp_path / m, m, {"method": m}) for m in methods]
    written.write(tmp_path, results)
    folders = {p.parent for p in tmp_path.rglob("curves.png")}
    assert folders == {tmp_path, tmp_path / "qmix", tmp_path / "vdn"}
    found = json.loads((tmp_path / "table.json").read_text())["results"]
    assert [r["method"] for r in found] == ["qmix", "vdn"]


def test_a_run_of_games_and_episodes_has_the_files_of_both(tmp_path: Path) -> None:
    results = [scores.table_result(tmp_path / "0", "vdn"), scores.result(tmp_path / "1")]
    found = written.write(tmp_path, results)
    files = {p.name for p in tmp_path.iterdir() if p.is_file()}
    assert files == {"table.json", "table.png", "curves.png", "marl_eval.json"}
    assert list(json.loads((tmp_path / "marl_eval.json").read_text())) == ["smax"]
    text = results_of(found)
    assert "vdn on matrix/a" in text and "qmix on smax/3m" in text


def test_without_results_nothing_is_written(tmp_path: Path) -> None:
    assert written.write(tmp_path, []) == []
    assert list(tmp_path.iterdir()) == []


def test_table1_has_our_records_the_shares_over_time_and_the_papers_numbers(
    tmp_path: Path,
) -> None:
    """The paper prints QMIX, which fits neither game, and nothing of VDN."""
    names = ["qmix", "vdn", "nmqmix", "qplex", "qtran", "qatten", "cw_qmix", "ow_qmix"]
    methods = [(name, game) for name in names for game in "ab"]
    folders = [tmp_path / f"{m}_{game}" for m, game in methods]
    results = [
        scores.table_result(folder, m, {"method": m, "env": f"matrix/{game}"}, game)
        for folder, (m, game) in zip(folders, methods, strict=True)
    ]
    found = [records.of(r) for r in results]
    text = printed(table1.write(tmp_path, found, folders))
    written_down = json.loads((tmp_path / "table1.json").read_text())
    assert list(written_down) == ["machine", "wall_s", "compile_s", "results"]
    assert (written_down["wall_s"], written_down["compile_s"]) == (32.0, 16.0)
    (first, *_, nmqmix_b), vdn_a = written_down["results"][:6], written_down["results"][2]
    assert {k: v for k, v in first.items() if k not in ("share_by_step", "paper")} == (
        found[0].to_json()
    )
    assert list(first["share_by_step"]) == ["100", "200", "300"]
    assert first["share_by_step"]["200"] == {"fit": 0.5, "optimal": 0.75, "both": 0.5}
    assert first["paper"]["q_tot"][0] == [-12.0, -12.0, -12.0]
    assert vdn_a["paper"] is None and nmqmix_b["paper"]["utilities"][0][0] == 6.2
    rows = [[c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert [(row[0], row[1], row[-1]) for row in rows[:6]] == [
        ("qmix", "A", "no fit, not optimal"),
        ("qmix", "B", "no fit, not optimal"),
        ("vdn", "A", "-"),
        ("vdn", "B", "-"),
        ("nmqmix", "A", "fits, optimal"),
        ("nmqmix", "B", "fits, optimal"),
    ]
    assert len(rows) == len(methods)
    assert (tmp_path / "table1.png").stat().st_size > 10_000


def test_what_the_terminal_shows_needs_neither_matplotlib_nor_scipy_stats() -> None:
    """They take two seconds to import, which `jaxvff train` need not wait before it starts."""
    code = (
        "import sys, jaxvff.reports.records, jaxvff.reports.stops, jaxvff.reports.tables\n"
        "print([m for m in ('matplotlib', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_football_that_was_made_easier_says_so_in_every_title() -> None:
    env = {"kind": "grf", "scenario": "academy_corner", "action_repeat": 1, "mask_actions": False}
    assert records.task(env) == "academy_corner"
    assert records.task({**env, "action_repeat": 3}) == "academy_corner (eased)"
    assert records.task({**env, "mask_actions": True}) == "academy_corner (eased)"


def test_payoffs_are_shown_with_three_digits_of_the_largest() -> None:
    shown = {0.012: "0.0120", 0.5: "0.500", 12.0: "12.0", 12000.0: "12000.0", 0.0: "0.0"}
    for payoff, text in shown.items():
        assert tables.number(payoff, tables.decimals(np.array([payoff, -payoff / 2]))) == text
    assert tables.decimals(np.array([np.nan, 0.5])) == 3
    assert tables.number(-0.00001, 2) == "0.00"


def test_the_table_of_bench_loses_no_figure_in_a_narrow_terminal() -> None:
    row = {
        "method": "ordered_nmqmix", "lanes": 1024, "seed_steps_per_s": 123456.0, "compile_s": 12.3,
        "init_s": 4.5, "state_bytes": 1_290_000, "part": "replay", "part_bytes": 768_000,
    }  # fmt: skip
    console = Console(width=40, file=io.StringIO())
    console.print(bench.terminal([row]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    cells = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    columns = ["".join(cell.strip() for cell in column) for column in zip(*cells, strict=True)]
    wanted = [
        "ordered_nmqmix",
        "1024",
        "123,456",
        "12.3s",
        "4.5s",
        "1.29MB/seed",
        "replay768kB/seed",
    ]
    assert [column.replace(" ", "") for column in columns] == wanted
