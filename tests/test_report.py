"""The page of `jaxvff report`: what it reads, what it says, and what it may not do."""

from __future__ import annotations

import csv
import html
import html.parser
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from jaxvff.cli import report
from jaxvff.core.errors import UserError
from jaxvff.core.files import plain
from jaxvff.reports import (
    entry_files,
    page,
    page_curves,
    page_data,
    rules,
    serving,
    study,
    svg,
)
from jaxvff.reports.statistics import band, interval, wilson
from jaxvff.runs.files import INPUTS, kept_copy
from jaxvff.settings import presets, sweep
from jaxvff.settings.overrides import parse

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
REPORTS, INTERVAL = 5, 100
VOID = {"meta", "link", "br", "input", "line", "use", "path"}


def config(**changes: Any) -> dict[str, Any]:
    """The composed configuration of a made-up run, as config.yaml has it."""
    base = {
        "run_dir": None, "seed": 0, "seeds": 4, "total_steps": REPORTS * INTERVAL, "n_envs": 1,
        "segment_length": 2, "lr": 0.001, "env": {"kind": "smax", "map": "3m"},
        "method": {"name": "qmix"},
    }  # fmt: skip
    return base | changes


def run_folder(
    folder: Path,
    *values: tuple[dict[str, Any], dict[str, Any]],
    level: float = 0.5,
    stopped: int | None = None,
    reports: int = REPORTS,
) -> Path:
    """A run folder as execute leaves it before the tables are written.

    Args:
      folder: to be made.
      values: label and configuration of each sweep value.
      level: of the win rates; each later seed, report and value has a little more.
      stopped: the index of a seed that stops after the second report.
      reports: how many there are so far.
    """
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text("command: train\nparts: [[]]\n")
    texts = [(f"# {label}\n" if label else "") + yaml.safe_dump(values) for label, values in values]
    (folder / "config.yaml").write_text("---\n".join(texts))
    lines = []
    for k in range(1, reports + 1):
        for i, (label, asked) in enumerate(values):
            n = asked["seeds"]
            wins = [round(level + 0.01 * (k + seed + 5 * i), 4) for seed in range(n)]
            stops = [-1] * n
            if stopped is not None and k > 2:
                wins[stopped], stops[stopped] = None, 2 * INTERVAL  # type: ignore[call-overload]
            lines.append(
                {
                    "step": k * INTERVAL, "sweep": label,
                    "seed": list(range(asked["seed"], asked["seed"] + n)),
                    "test_win_rate": wins,
                    "test_return": [None if w is None else 2 * w for w in wins],
                    "env_steps": [k * INTERVAL] * n, "stopped_at": stops, "wall_s": 2.0 * k,
                }
            )  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def data(picture: page_data.Picture, what: str) -> list[dict[str, str]]:
    """The rows of a picture's data."""
    (file,) = (f for f in picture.files if f.what == what)
    text = urllib.parse.unquote(file.uri.partition(",")[2])
    return list(csv.DictReader(io.StringIO(text)))


class Outline(html.parser.HTMLParser):
    """The tags of a page, of which every one that is opened has to be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or tag in ("path",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def outline(text: str) -> Outline:
    out = Outline()
    out.feed(text)
    assert not out.open
    return out


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (page.Wish((), "test_typo"), "score='test_typo' is unknown"),
        (page.Wish((), "regret"), "score=regret is better where it is smaller"),
        (page.Wish(("typo",), None), "curves='typo' is unknown"),
    ],
)
def test_what_was_not_measured_is_neither_drawn_nor_compared(
    wish: page.Wish, says: str, tmp_path: Path
) -> None:
    folder = run_folder(tmp_path / "a", ({}, config()))
    with pytest.raises(UserError, match=says):
        page.gather([folder], wish)


@pytest.mark.parametrize(
    ("name", "content"),
    [("table.json", "[]"), ("table.json", '{"results": [{}]}'), ("timing.json", "[1]")],
)
def test_a_damaged_file_of_a_run_is_told(name: str, content: str, tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", ({}, config()))
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} cannot be read"):
        page.gather([folder])


def test_a_curve_is_the_iqm_over_seeds_with_the_interval_of_the_statistics(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", ({}, config()))
    (task,) = page.gather([folder]).tasks
    picture = task.curves[0]
    assert picture.title == "greedy win rate"
    rows = data(picture, "curves")
    assert [float(row["env_steps"]) for row in rows] == [100, 200, 300, 400, 500]
    wins = np.array([[0.5 + 0.01 * (k + s) for s in range(4)] for k in range(1, 6)])
    expected = band(wins, resamples=page_curves.RESAMPLES)
    for name in ("iqm", "low", "high"):
        found = [float(row[name]) for row in rows]
        np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-4)
    seeds = data(picture, "each seed")
    np.testing.assert_allclose([float(row["seed 3"]) for row in seeds], wins[:, 2], rtol=1e-4)
    np.testing.assert_allclose(task.scores[0].scores[0], interval(wins[-1][:, None]), rtol=1e-6)


def test_a_seed_that_stopped_is_named_and_part_of_no_mean(tmp_path: Path) -> None:
    found = page.gather([run_folder(tmp_path / "a", ({}, config()), stopped=1)])
    (stop,) = found.stops
    assert stop.what.startswith("seed 1 stopped at env step 200")
    (score,) = found.tasks[0].scores
    assert (score.stopped, score.scores[0].n, score.scores[0].excluded) == (1, 3, 1)  # type: ignore[union-attr]
    assert np.isfinite(score.scores[0].iqm)  # type: ignore[union-attr]


def test_runs_that_differ_in_their_seeds_alone_are_one_method_with_all_seeds(
    tmp_path: Path,
) -> None:
    one = run_folder(tmp_path / "one", ({}, config(run_dir="one")))
    two = run_folder(tmp_path / "two", ({}, config(run_dir="two", seed=4, seeds=3)))
    other = run_folder(tmp_path / "other", ({}, config(lr=0.01)))
    again = run_folder(tmp_path / "again", ({}, config()))
    (task,) = page.gather([one, two, other, again]).tasks
    seeds = {score.name: score.seeds for score in task.scores}
    # `again` has the seeds of `one`: a repetition gives no further seeds.
    assert sorted(seeds.values()) == [4, 4, 7]
    assert seeds["qmix, lr=0.01"] == 4


def test_only_what_differs_is_named_and_listed(tmp_path: Path) -> None:
    sweep = [({"lr": lr}, config(lr=lr)) for lr in (0.1, 0.01)]
    vdn = config(method={"name": "vdn"}, env={"kind": "smax", "map": "2s3z"})
    found = page.gather([run_folder(tmp_path / "a", *sweep), run_folder(tmp_path / "b", ({}, vdn))])
    assert [task.name for task in found.tasks] == ["smax/3m", "smax/2s3z"]
    assert {s.name for s in found.tasks[0].scores} == {"qmix, lr=0.1", "qmix, lr=0.01"}
    assert [s.name for s in found.tasks[1].scores] == ["vdn"]
    assert set(found.settings.keys) == {"env.map", "lr", "method.name"}
    assert found.settings.shared["total_steps"] == "500"
    assert "seeds" not in found.settings.shared


def test_tasks_that_differ_in_an_option_of_the_environment_are_apart(tmp_path: Path) -> None:
    penalties = [config(env={"kind": "predator_prey", "penalty": p}) for p in (-0.5, -2.0)]
    paths = [run_folder(tmp_path / str(k), ({}, c)) for k, c in enumerate(penalties)]
    names = [task.name for task in page.gather(paths).tasks]
    assert names == ["predator_prey, penalty=-0.5", "predator_prey, penalty=-2"]


def game_of_file(folder: Path, path: str, table: list[list[int]], **own: Any) -> Path:
    """A run of a matrix game that kept a copy of its payoffs, as every run does."""
    run_folder(folder, ({}, config(env={"kind": "matrix", "file": path}, **own)))
    copy = kept_copy(folder / INPUTS, path)
    copy.parent.mkdir()
    copy.write_text(json.dumps(table))
    return folder


def test_a_file_of_payoffs_is_known_by_what_it_holds_and_not_by_its_name(tmp_path: Path) -> None:
    """One path with two contents is two tasks, also for seeds that go on; two paths may be one."""
    one, other = [[5, 0], [0, 1]], [[0, 5], [1, 0]]
    runs = [
        game_of_file(tmp_path / "a", "game.json", one),
        game_of_file(tmp_path / "b", "game.json", other, seed=4),
        game_of_file(tmp_path / "c", "/elsewhere/same.json", one, lr=0.01),
        run_folder(tmp_path / "d", ({}, config(lr=1.0, env={"kind": "matrix", "payoff": one}))),
    ]
    tasks = page.gather(runs).tasks
    assert [len(task.scores) for task in tasks] == [3, 1]
    assert [task.scores[0].seeds for task in tasks] == [4, 4]
    for task in tasks:
        assert re.fullmatch(r"matrix/game\.json, payoffs=[0-9a-f]{8}", task.name)


def test_a_default_that_one_run_spells_out_makes_no_task_of_its_own(tmp_path: Path) -> None:
    prey = {"kind": "predator_prey", "penalty": -2}
    envs = [prey, {**prey, "penalty": -2.0, "time_limit": 200}, {**prey, "time_limit": 50}]
    paths = [
        run_folder(tmp_path / str(k), ({}, config(env=env, seed=4 * k)))
        for k, env in enumerate(envs)
    ]
    tasks = page.gather(paths).tasks
    assert [task.name for task in tasks] == [
        "predator_prey, time_limit=200", "predator_prey, time_limit=50"
    ]  # fmt: skip
    assert [task.scores[0].seeds for task in tasks] == [8, 4]


def test_all_tasks_together_count_a_game_with_two_time_limits_as_two_tasks(tmp_path: Path) -> None:
    envs = [{"kind": "smax", "map": "3m", "time_limit": limit} for limit in (60, 100)]
    paths = [
        run_folder(tmp_path / f"{k}{method}", ({}, config(env=env, method={"name": method})))
        for k, env in enumerate(envs)
        for method in ("qmix", "vdn")
    ]
    together = page.gather(paths).across
    assert together is not None
    assert together.tasks == ["smax/3m, time_limit=60", "smax/3m, time_limit=100"]
    assert [score.n for _, _, score in together.scores] == [8, 8]
    returns = page.gather(paths, page.Wish((), "test_return"))
    assert returns.across is None  # the tasks need not have the same units
    assert {task.score for task in returns.tasks} == {"greedy return"}


def test_records_that_tell_no_options_are_of_a_task_of_their_own(tmp_path: Path) -> None:
    """smax/3m may be any of its time limits."""
    record = {"sweep": {"env": "smax/3m", "method": "qmix"}, "steps": 500, "seed": [0, 1],
              "test_return": [1.0, 2.0]}  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps({"results": [record]}))
    run = run_folder(tmp_path / "a", ({}, config()))
    names = [task.name for task in page.gather([run, tmp_path / "old.json"]).tasks]
    assert names == [f"smax/3m ({run})", f"smax/3m ({tmp_path}/old.json)"]


def test_the_parts_of_reproduce_coordination_are_its_games_with_the_methods_of_each(
    tmp_path: Path,
) -> None:
    """Parts sweep methods and one key over one value in several games: labels do not tell them."""
    run = tmp_path / "run"
    parts = presets.overrides(
        "coordination", parse(["seeds=4", "sweep.method=[ordered_joint,qmix,vdn]"])
    )
    values = [sweep.expand(part) for part in parts]
    for k, part in enumerate(values):
        told = [(plain(label), plain(asdict(one))) for label, one in part]
        run_folder(run / f"{k:02d}_part", *told)
    (run / "run.yaml").write_text(
        json.dumps(
            {"command": "reproduce coordination", "parts": [[o.text for o in p] for p in parts]}
        )
    )
    entries = study.pooled(rules.completed(entry_files.read(run)))
    assert len({json.dumps(plain(label)) for part in values for label, _ in part}) < len(entries)
    tasks = study.by_task(entries)
    assert list(tasks) == [
        *(f"matrix_steps/{game}" for game in ("two_step", "maven", "chain")),
        *(f"predator_prey, penalty={x}" for x in (0, -0.5, -1, -2)),
        *(f"foraging, penalty={x}" for x in (0, 0.1)),
    ]
    for of_task in tasks.values():
        assert sorted(study.named(of_task)) == ["ordered_joint", "qmix", "vdn"]


def test_runs_that_are_one_row_show_what_each_of_them_took_learned_and_ran_on(
    tmp_path: Path,
) -> None:
    game = {"kind": "matrix", "game": "a"}
    paths, payoff = [], [[5, 0], [0, 1]]
    for k, wall in enumerate((100.0, 400.0)):
        path = run_folder(tmp_path / str(k), ({}, config(env=game, seed=4 * k)))
        (path / "timing.json").write_text(json.dumps({"compile_s": 10.0, "wall_s": wall}))
        learned = {"seed": 4 * k, "q_tot": [[k, 0], [0, 1]], "utilities": [[1, 0], [1, 0]]}
        record = {"sweep": {}, "method": "qmix", "env": game, "steps": REPORTS * INTERVAL,
                  "payoff": payoff, "median_seed": learned}  # fmt: skip
        machine = {"jax": f"0.{k}", "device": "cpu", "n_devices": 2}
        (path / "table.json").write_text(json.dumps({"results": [record], "machine": machine}))
        paths.append(path)
    found = page.gather(paths)
    (row,) = found.runs
    assert (row.seeds, row.wall_s, row.compile_s) == (8, (100, 400), (10, 10))
    assert row.seed_steps_per_s == pytest.approx((4 * 500 / 390, 4 * 500 / 90))
    assert found.machines == [(str(p), f"jax 0.{k}, 2 × cpu") for k, p in enumerate(paths)]
    titles = [both[1].title for both in found.tasks[0].payoffs]
    assert [title.partition("learned, ")[2] for title in titles] == [
        f"the median by error of {path}" for path in paths
    ]
    text = page.html(found)
    assert "100 s to 7 min" in text
    assert ">10 s<" in text


def test_a_run_that_is_not_complete_says_how_far_it_is(tmp_path: Path) -> None:
    found = page.gather([run_folder(tmp_path / "a", ({}, config()), reports=2)])
    assert found.runs[0].state == "ended early, 40% of 500"
    assert found.stops[0].what == "the run ended early, after 200 of 500 env steps"


def test_the_tables_of_a_matrix_game_are_there_with_rates_and_the_greedy_cell() -> None:
    found = page.gather([RESULTS / "table1.json"])
    a, b = found.tasks
    assert (a.name, b.name) == ("matrix/a", "matrix/b")
    rates = {score.name: score.rates for score in a.scores}
    assert rates["nmqmix"][2] == pytest.approx(wilson(99, 256), abs=1e-6)
    true, learned = next(both for both in a.payoffs if both[1].title.startswith("nmqmix:"))
    assert [cell.text for cell in true.cells[0]] == ["12.0", "-12.0", "-12.0"]
    assert [[c.marked for c in row].count(True) for row in learned.cells].count(1) == 1
    # The best come first.
    both = [score.rates[2].rate for score in b.scores]  # type: ignore[union-attr]
    assert both == sorted(both, reverse=True)


@pytest.mark.parametrize(
    "name", ["smax.json", "smax_3m.json", "smax_other_maps.json", "smax_suite.json", "contextual.json",
             "steps.json", "predator_prey.json", "beyond.json", "random_games.json",
             "coordination.json"]
)  # fmt: skip
def test_every_record_of_trained_methods_can_be_read(name: str) -> None:
    entries = entry_files.read(RESULTS / name)
    assert len(entries) == len(json.loads((RESULTS / name).read_text())["results"])
    assert all(entry.final or entry.rates for entry in entries)


def test_all_tasks_together_compare_the_methods_that_were_trained_on_each() -> None:
    together = page.gather([RESULTS / "steps.json"]).across
    assert together is not None
    assert len(together.tasks) == 3
    assert together.pairs is not None
    n = len(together.pairs.names)
    for i in range(n):
        for j in range(i):
            one, other = together.pairs.cells[i][j], together.pairs.cells[j][i]
            assert one is not None
            assert other is not None
            assert one.probability + other.probability == pytest.approx(1)
            assert one.low == pytest.approx(1 - other.high)


def test_the_page_is_one_file_that_asks_for_no_other(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / "a", ({}, config()), stopped=0), RESULTS / "table1.json"]
    path = page.write(runs, tmp_path / "report")
    text = path.read_text()
    assert [p.name for p in path.parent.iterdir()] == ["index.html"]
    tags = outline(text)
    for tag, attrs in tags.tags:
        for name in ("src", "href", "xlink:href", "action"):
            target = attrs.get(name) or "#"
            assert target.startswith(("#", "data:")), f"<{tag} {name}={target[:60]}>"
    assert "url(http" not in text
    assert "@import" not in text
    policy = next(m for m in tags.all("meta") if m.get("http-equiv"))["content"] or ""
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy


def test_who_hears_the_page_hears_what_its_pictures_and_tables_say(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / "a", ({}, config())), RESULTS / "table1.json"]
    text = page.html(page.gather(runs))
    tags = outline(text)
    pictures = [s for s in tags.all("svg") if s.get("class") not in ("swatch", "seeds")]
    assert pictures
    assert all(s.get("role") == "img" and len(s.get("aria-label") or "") > 40 for s in pictures)
    assert all(s.get("aria-hidden") for s in tags.all("svg") if s.get("class") == "swatch")
    assert all(th.get("scope") in ("row", "col") for th in tags.all("th"))
    assert tags.all("html")[0]["lang"] == "en"
    assert len(tags.all("h1")) == 1
    ids = [attrs["id"] for _, attrs in tags.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    named = {attrs["aria-labelledby"] for _, attrs in tags.tags if "aria-labelledby" in attrs}
    assert named <= set(ids)
    anchors = {a["href"][1:] for a in tags.all("a") if (a["href"] or "").startswith("#")}  # type: ignore[index]
    assert anchors <= set(ids)


def test_pictures_have_no_colour_of_their_own(tmp_path: Path) -> None:
    """Colours come from the style sheet, which has them for light and for dark."""
    (task,) = page.gather([run_folder(tmp_path / "a", ({}, config()))]).tasks
    for picture in [*task.curves, task.final, task.profile]:
        assert picture is not None
        assert not re.findall(r"#[0-9a-f]{6}\b", picture.svg)
        assert "var(--text)" in picture.svg
        assert "font-family" not in picture.svg


def test_names_cannot_bring_markup_into_the_page(tmp_path: Path) -> None:
    evil = '<script>alert("$x$")</script>'
    folder = run_folder(tmp_path / "a", ({}, config(method={"name": evil})))
    text = page.html(page.gather([folder]))
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    outline(text)


def test_curves_beyond_the_colours_are_told_apart_by_dashes() -> None:
    looks = {(svg.color(k), str(svg.dashes(k))) for k in range(40)}
    assert len(looks) == 40


def test_many_curves_leave_the_worst_to_the_table(tmp_path: Path) -> None:
    values = [({"lr": k / 1000}, config(lr=k / 1000)) for k in range(1, 26)]
    (task,) = page.gather([run_folder(tmp_path / "a", *values, level=0.1)]).tasks
    assert (len(task.legend), task.left_out, len(task.scores)) == (20, 5, 25)
    assert task.legend[0].name == "qmix, lr=0.025"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "report takes run folders"),
        ("nowhere", "nowhere does not exist"),
        ("nowhere oout=x", "a key is one of out="),
        ("{run} watch=yes", "watch=yes must be true or false"),
        ("{run} port=80", "port=80 does nothing without watch=true"),
        ("{run} watch=true port=99999", "port=99999 must be a whole number from 0 to 65535"),
        ("{run} watch=true every=0", "every=0 must be a whole number from 1 to 3600"),
        ("{run} out={run}/run.yaml", "is a file; name a folder"),
        ("{run}/config.yaml", "is no run folder, and no file of records"),
        ("{empty}", "is no run folder: it has no readable run.yaml"),
        ("{new}", "nothing has been reported yet"),
    ],
)
def test_mistakes_are_named(text: str, complaint: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_folder(tmp_path / "run", ({}, config()))
    new = run_folder(tmp_path / "new", ({}, config()), reports=0)
    (tmp_path / "empty").mkdir()
    args = text.format(run=run, new=new, empty=tmp_path / "empty").split()
    with pytest.raises(UserError) as error:
        report.run(args)
    assert complaint in str(error.value)
    assert not (tmp_path / "report").exists()


def test_a_watched_page_is_served_here_alone_and_renewed_when_a_run_reports(
    tmp_path: Path,
) -> None:
    folder = run_folder(tmp_path / "a", ({}, config()), reports=2)
    shown = ""

    def write() -> None:
        nonlocal shown
        shown = page.html(page.gather([folder]), renews=True)

    def fetched(path: str = "", host: str | None = None) -> tuple[int, str, str]:
        headers = {"Host": host} if host else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address + path, headers=headers)
            ) as r:
                return r.status, r.headers["ETag"], r.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, "", ""

    write()
    with serving.served(lambda: shown, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        status, tag, text = fetched()
        assert status == 200
        assert "40% of 500" in text
        assert "connect-src 'self'" in text
        assert fetched("run.yaml")[0] == fetched("../a/run.yaml")[0] == 404
        assert fetched(host="elsewhere.example:80")[0] == 403

        looks = iter([True, True, True, False])

        def goes_on() -> bool:
            left = next(looks)
            if not left:
                return False
            line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
            line["step"] += INTERVAL
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            return True

        serving.renew([folder], 0.01, write, goes_on)
        _, new_tag, text = fetched()
        assert new_tag != tag
        assert "complete" in text
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address)


def test_ctrl_c_ends_watching_and_leaves_a_page_that_asks_nobody(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", ({}, config()))
    command = [sys.executable, "-m", "jaxvff", "report", str(folder), "watch=true", "port=0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(address) as answer:
            assert "this page renews itself" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert errors == "jaxvff: stopped; what was written is kept\n"
    left = (tmp_path / "report" / "index.html").read_text()
    assert "renews itself" not in left
    outline(left)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# What a reader does, and what the page is asked afterwards; its answer is put into the title.
TRIED = """<script>
const rows = () => [...document.querySelectorAll("#task-0 table.sortable tbody tr")].map(r => parseFloat(r.cells[1].dataset.value));
const head = document.querySelector("#task-0 table.sortable thead th.n"), before = rows();
head.querySelector("button").click();
const falling = rows(), said = head.getAttribute("aria-sort");
head.querySelector("button").click();
const rising = rows();
document.querySelector("#task-0 .show-seeds").click();
const box = document.querySelector("#task-0 figure svg svg.seeds");
document.title = JSON.stringify({falling, said, rising, seeds: box.childElementCount,
  inside: [...box.querySelectorAll("path")].every(p => /^M[\\d.]+ [\\d.]+(L[\\d.]+ [\\d.]+)+$/.test(p.getAttribute("d"))),
  wide: document.documentElement.scrollWidth > innerWidth});
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_sorts_and_draws_seeds_from_a_file_without_an_error(
    width: int, tmp_path: Path
) -> None:
    values = [({"lr": lr}, config(lr=lr, seeds=3)) for lr in (0.1, 0.01, 0.2)]
    path = page.write([run_folder(tmp_path / "a", *values)], tmp_path / "report")
    path.write_text(path.read_text().replace("</body>", TRIED))
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900",
            "--enable-logging=stderr", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    found = json.loads(html.unescape(re.findall(r"<title>(.*?)</title>", done.stdout)[0]))
    assert found["falling"] == sorted(found["falling"], reverse=True)
    assert found["rising"] == found["falling"][::-1]
    assert found["said"] == "descending"
    assert found["seeds"] == 9  # three of each of three values
    assert found["inside"]
    assert not found["wide"], "only tables may be wider than the screen, and they scroll"
