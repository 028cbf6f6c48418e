"""What the plots show: learning curves, rates, and learned tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from jaxvff.reports import plots, records, tables
from jaxvff.reports.records import MedianSeed, TableRecord
from jaxvff.reports.statistics import Rate
from jaxvff.runs.execute import Result
from tests import scores


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch):
    """Figures instead of files."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    yield figures
    plt.close("all")


def learning_curves(*results: Result, drawn: list[Figure]) -> dict:
    plots.learning_curves(
        [records.curve(r.folder, records.of(r)) for r in results], Path("curves.png")
    )
    return {ax.get_title(): ax for ax in drawn[-1].axes}


def game(method: str, name: str, rate: Rate, **sweep: object) -> TableRecord:
    """Of a made-up run of two seeds on a matrix game."""
    return TableRecord(
        sweep={"method": method, **sweep},
        method=method,
        env={"kind": "matrix", "game": name},
        steps=0,
        seed=[0, 1],
        timing={},
        stopped_at=np.full(2, -1),
        test_return=np.zeros(2),
        rates=dict.fromkeys(tables.RATES, rate),
        payoff=np.eye(2),
        median_seed=MedianSeed(0, np.eye(2), np.eye(2)),
        per_seed={},
    )


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


def test_each_environment_has_a_row_and_a_method_one_colour_in_all_of_them(
    tmp_path: Path, drawn
) -> None:
    maps, methods = ("3m", "2s3z"), ("qmix", "vdn")
    results = [
        scores.result(
            tmp_path / m / name, m, {"env": name, "method": m}, {"kind": "smax", "map": name}
        )
        for name in maps
        for m in methods
    ]
    panels = learning_curves(*results, drawn=drawn)
    first, second = (panels[f"smax/{name}: greedy win rate"] for name in maps)
    colors = [[line.get_color() for line in ax.lines] for ax in (first, second)]
    assert colors[0] == colors[1]
    assert len(set(colors[0])) == 2
    assert [first.get_xlabel(), second.get_xlabel()] == ["", "env steps per seed"]
    (legend,) = drawn[-1].legends
    assert [text.get_text() for text in legend.get_texts()] == list(methods)


def test_curves_of_a_matrix_game_have_its_shares_and_those_of_several_have_both(
    tmp_path: Path, drawn
) -> None:
    one, other = (scores.table_result(tmp_path / m, m, {"method": m}) for m in ("qmix", "vdn"))
    alone = learning_curves(one, drawn=drawn)["share of seeds"].lines
    assert [line.get_label() for line in alone] == list(tables.RATES.values())
    np.testing.assert_allclose(alone[0].get_ydata(), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(alone[0].get_xdata(), [100, 200, 300])
    panels = learning_curves(one, other, scores.result(tmp_path / "smax"), drawn=drawn)
    together = panels["matrix/a: share of seeds that fit and are optimal"].lines
    assert [line.get_label() for line in together] == ["both", "both"]  # and none of the episodes


def test_rates_of_a_sweep_are_drawn_a_line_per_value(tmp_path: Path, drawn) -> None:
    rate = Rate(1, 2, 0.5, 0.3, 0.7)
    found = [
        game(method, "a", rate, epsilon_end=level)
        for method in ("qmix", "vdn")
        for level in (0.1, 1.0)
    ]
    plots.rates(found, tmp_path / "rates.png")
    (figure,) = drawn
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert labels == [r.title for r in found]
    colors = [line.get_color() for line in figure.axes[0].get_lines()[::2]]
    assert colors[0] == colors[1] != colors[2] == colors[3], "a colour for each method"


def test_rates_of_many_values_are_a_grid_of_methods_and_games(tmp_path: Path, drawn) -> None:
    methods, games = ["qmix", "vdn", "iql"], [f"g{i}" for i in range(14)]
    found = [
        game(method, name, Rate(0, 2, (i + j) / 20, 0.0, 1.0), env=name)
        for i, method in enumerate(methods)
        for j, name in enumerate(games)
        if (method, name) != ("iql", "g0")  # what was not run is an empty cell
    ]
    plots.rates(found, tmp_path / "rates.png")
    (figure,) = drawn
    for ax in figure.axes:
        assert [t.get_text() for t in ax.get_yticklabels()] == methods
        assert [t.get_text() for t in ax.get_xticklabels()] == games
        (image,) = ax.images
        want = np.add.outer(np.arange(3), np.arange(14)) / 20
        want[2, 0] = np.nan
        np.testing.assert_allclose(image.get_array().filled(np.nan), want)
        assert len(ax.texts) == 2 * len(found)


def test_a_learned_table_frames_the_greedy_joint_action(tmp_path: Path, drawn) -> None:
    record = records.of(scores.table_result(tmp_path))
    utilities = np.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    median = record.median_seed._replace(utilities=utilities)
    record = dataclasses.replace(record, median_seed=median)
    plots.learned_tables([record], tmp_path / "table.png")
    true, learned = drawn[0].axes
    corners = [ax.patches[0].get_xy() for ax in (true, learned)]
    np.testing.assert_allclose(corners, [[-0.47, -0.47], [-0.47, 0.53]])  # (0, 0) and (1, 0)
    assert [t.get_text() for t in learned.get_yticklabels()] == ["A (0.0)", "B (2.0)", "C (1.0)"]
    assert [t.get_text() for t in learned.get_xticklabels()] == ["A\n(3.0)", "B\n(2.0)", "C\n(1.0)"]
    assert "seed 2 (median)" in learned.get_title()
