"""What is shown of runs with greedy scores: the table, its JSON record, the curves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from rich.console import Console

from jaxvff import aggregate, commands, plots, show
from tests import scores


def printed(records: list[dict]) -> str:
    console = Console(width=160, file=io.StringIO())
    show.print_results(console, records)
    return console.file.getvalue()


def test_the_table_has_the_iqm_and_interval_of_the_record(tmp_path: Path) -> None:
    result = scores.result(tmp_path)
    record = show.record(result)
    wins = aggregate.interval(result.metrics["test_win_rate"][:, None])
    assert record["aggregate"]["test_win_rate"]["iqm"] == pytest.approx(wins.iqm)
    assert record["per_seed"]["test_win_rate"] == [scores.score(2, seed) for seed in range(4)]
    assert record["env_steps"] == [300, 299, 298, 297]
    (row,) = [line for line in printed([record]).splitlines() if "qmix on smax/3m" in line]
    assert f"{wins.iqm:.2f} [{wins.low:.2f},{wins.high:.2f}]" in row
    assert [cell.strip() for cell in row.split("│")[-3:-1]] == ["4", "0"]  # seeds, stopped


def test_a_stopped_seed_is_counted_and_in_no_mean(tmp_path: Path) -> None:
    record = show.record(scores.result(tmp_path, stopped=(3,)))
    assert record["stopped"] == 1
    assert record["per_seed"]["test_return"][3] is None
    kept = [scores.score(2, seed) for seed in range(3)]
    assert record["aggregate"]["test_win_rate"]["iqm"] == pytest.approx(np.mean(kept))
    (row,) = [line for line in printed([record]).splitlines() if "qmix on smax/3m" in line]
    assert [cell.strip() for cell in row.split("│")[-3:-1]] == ["4", "1"]


def test_a_run_whose_seeds_all_stopped_shows_a_dash(tmp_path: Path) -> None:
    records = [
        show.record(scores.result(tmp_path / "0", "qmix", stopped=(0, 1, 2, 3))),
        show.record(scores.result(tmp_path / "1", "vdn")),
    ]
    (row,) = [line for line in printed(records).splitlines() if "qmix on smax/3m" in line]
    assert [cell.strip() for cell in row.split("│")[3:-1]] == ["-", "-", "4", "4"]


def test_win_rates_are_shown_only_where_someone_can_win(tmp_path: Path) -> None:
    env = {"kind": "jaxmarl", "name": "MPE_simple_spread_v3"}
    text = printed([show.record(scores.result(tmp_path, env=env, winners=False))])
    assert "qmix on jaxmarl/MPE_simple_spread_v3" in text
    assert "win rate" not in text and "return" in text


def test_several_groups_have_curves_each_and_all_together(tmp_path: Path) -> None:
    methods = ("qmix", "vdn")
    results = [scores.result(tmp_path / m, m, {"method": m}) for m in methods]
    commands.write_results(tmp_path, results)
    places = {p.parent for p in tmp_path.rglob("curves.png")}
    assert places == {tmp_path, tmp_path / "qmix", tmp_path / "vdn"}
    records = json.loads((tmp_path / "table.json").read_text())["results"]
    assert [r["method"] for r in records] == ["qmix", "vdn"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch):
    """Figures instead of files."""
    figures = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    yield figures
    plt.close("all")


def learning_curves(*results, drawn) -> dict:
    records = [show.record(r) for r in results]
    curves = [(r, show.curve(x.folder, r["sweep"])) for r, x in zip(records, results, strict=True)]
    plots.learning_curves(curves, Path("curves.png"))
    return {ax.get_title(): ax for ax in drawn[-1].axes}


def test_curves_are_medians_against_exact_env_steps(tmp_path: Path, drawn) -> None:
    panels = learning_curves(scores.result(tmp_path), drawn=drawn)
    assert list(panels) == [
        "greedy win rate",
        "greedy return (env units)",
        "|TD error| (env units)",
    ]
    median, *seeds = panels["greedy win rate"].lines
    np.testing.assert_allclose(median.get_xdata(), [98.5, 198.5, 298.5])
    wins = [[scores.score(report, seed) for seed in range(4)] for report in range(3)]
    np.testing.assert_allclose(median.get_ydata(), np.median(wins, axis=1))
    for seed, line in enumerate(seeds):
        np.testing.assert_allclose(line.get_xdata(), [100 - seed, 200 - seed, 300 - seed])
        np.testing.assert_allclose(line.get_ydata(), np.array(wins)[:, seed])
    assert len(seeds) == 4


def test_each_sweep_value_is_one_line_of_its_own_colour_and_name(tmp_path: Path, drawn) -> None:
    methods = ("qmix", "vdn")
    results = [scores.result(tmp_path / m, m, {"method": m}, stopped=(0,)) for m in methods]
    panels = learning_curves(*results, drawn=drawn)
    lines = panels["greedy return (env units)"].lines
    assert len(lines) == len({line.get_color() for line in lines}) == 2
    (legend,) = drawn[-1].legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"{m} on smax/3m (1 of 4 seeds stopped)" for m in methods]


def test_sweep_values_beyond_the_colours_are_counted(tmp_path: Path, drawn) -> None:
    results = [scores.result(tmp_path / str(i), sweep={"lr": i}) for i in range(22)]
    panels = learning_curves(*results, drawn=drawn)
    assert len(panels["greedy win rate"].lines) == 20
    assert "2 more left out" in drawn[-1].legends[0].get_title().get_text()


def test_rates_of_a_sweep_are_drawn_a_line_per_value(tmp_path: Path, monkeypatch) -> None:
    rate = {"rate": 0.5, "low": 0.3, "high": 0.7}
    records = [
        {
            "sweep": {"method": name, "epsilon_end": level}, "method": name, "seed": [0, 1],
            "env": {"kind": "matrix", "game": "a"}, "rates": dict.fromkeys(show.RATES, rate),
        }
        for name in ("qmix", "vdn")
        for level in (0.1, 1.0)
    ]  # fmt: skip
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    plots.rates(records, tmp_path / "rates.png")
    (figure,) = drawn
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == [show.title(r) for r in records]
    colors = [line.get_color() for line in figure.axes[0].get_lines()[::2]]
    assert colors[0] == colors[1] != colors[2] == colors[3], "a colour for each method"
    plt.close(figure)


def test_rates_of_many_values_are_a_grid_of_methods_and_games(tmp_path: Path, monkeypatch) -> None:
    methods, games = ["qmix", "vdn", "iql"], [f"g{i}" for i in range(14)]
    records = [
        {
            "sweep": {"method": m, "env": g}, "method": m, "seed": [0, 1],
            "env": {"kind": "matrix", "game": g},
            "rates": {k: {"rate": (i + j) / 20, "low": 0.0, "high": 1.0} for k in show.RATES},
        }
        for i, m in enumerate(methods)
        for j, g in enumerate(games)
        if (m, g) != ("iql", "g0")  # what was not run is an empty cell
    ]  # fmt: skip
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    plots.rates(records, tmp_path / "rates.png")
    (figure,) = drawn
    for ax in figure.axes:
        assert [t.get_text() for t in ax.get_yticklabels()] == methods
        assert [t.get_text() for t in ax.get_xticklabels()] == games
        (image,) = ax.images
        want = np.add.outer(np.arange(3), np.arange(14)) / 20
        want[2, 0] = np.nan
        np.testing.assert_allclose(image.get_array().filled(np.nan), want)
        assert len(ax.texts) == 2 * len(records)
    plt.close(figure)
