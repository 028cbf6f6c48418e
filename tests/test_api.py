"""The Python API: what the command line does, as functions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxvff
from jaxvff.api import shown
from jaxvff.api.results import Columns
from jaxvff.api.run import Run
from jaxvff.cli.main import main
from jaxvff.core.files import plain
from jaxvff.reports import records, table_file
from jaxvff.reports.records import EpisodeRecord
from jaxvff.reports.statistics import interval
from jaxvff.runs.files import CONFIG_FILE, METRICS_FILE, TABLE_FILE
from jaxvff.settings import config, sweep
from jaxvff.settings.overrides import from_values, parse

TINY: dict[str, Any] = {
    "seeds": 2, "hidden_dim": 8, "batch_size": 8, "learn_start": 8, "buffer_size": 32,
    "total_steps": 60, "eval_interval": 20, "eval_episodes": 2, "progress": False,
}  # fmt: skip
LINES = dict[str, Any]


def lines(folder: Path) -> list[LINES]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_time(line: LINES) -> LINES:
    return {k: v for k, v in line.items() if k != "wall_s"}


@pytest.fixture(scope="module")
def told() -> list[LINES]:
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, told: list[LINES]) -> Run:
    """Two learning rates, two seeds each, in one program."""
    folder = tmp_path_factory.mktemp("api") / "run"
    return jaxvff.train(
        method="qmix", env="matrix/b", on_report=told.append, run_dir=folder,
        **TINY, **{"sweep.lr": [1e-3, 1e-2]},
    )  # fmt: skip


BEFORE_JAX = """
import sys, jaxvff
print(jaxvff.list_methods(), jaxvff.list_envs())
for call in (lambda: jaxvff.train(lrr=1), lambda: jaxvff.load("nowhere")):
    try:
        call()
    except jaxvff.UserError as error:
        print(error)
print("jax" in sys.modules)
"""


def test_names_and_mistakes_are_there_before_jax() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_JAX], capture_output=True, text=True, check=True
    )
    names, key, folder, jax = done.stdout.splitlines()
    assert "'qmix'" in names
    assert "'smax/3m'" in names
    assert key.startswith("unknown key 'lrr'; did you mean lr?")
    assert folder == "nowhere is no run folder: it has no readable run.yaml"
    assert jax == "False"


def test_on_report_is_told_what_metrics_jsonl_has(run: Run, told: list[LINES]) -> None:
    kept = lines(run.folder)
    assert len(kept) == 6
    assert [without_time(plain(line)) for line in told] == [without_time(line) for line in kept]


def test_results_are_those_of_the_last_report(run: Run) -> None:
    assert [record.sweep for record in run.results] == [{"lr": 1e-3}, {"lr": 1e-2}]
    last = lines(run.folder)[-2:]
    columns = run.results.columns
    assert columns["seed"].tolist() == [0, 1, 0, 1]
    assert columns["lr"].tolist() == [1e-3, 1e-3, 1e-2, 1e-2]
    for name in ("test_return", "max_error", "optimal"):
        assert plain(columns[name]) == [x for line in last for x in line[name]]
    text = repr(run.results)
    assert "qmix on matrix/b, lr=0.01" in text
    assert "<pre" in run.results._repr_html_()


def test_curves_have_a_row_per_report_and_seed(run: Run) -> None:
    curves = run.curves
    assert curves.n_rows == 12
    assert curves["step"].tolist() == sorted([20, 40, 60] * 4)
    mine = curves["max_error"][(curves["lr"] == 1e-2) & (curves["seed"] == 1)]
    kept = [line["max_error"][1] for line in lines(run.folder) if line["sweep"] == {"lr": 1e-2}]
    assert plain(mine) == kept


def test_columns_without_a_value_are_nan_and_pandas_has_the_same() -> None:
    pandas = pytest.importorskip("pandas")
    columns = Columns([{"a": 1, "b": "x"}, {"a": None, "c": True}])
    assert list(columns) == ["a", "b", "c"]
    np.testing.assert_array_equal(columns["a"], [1, np.nan])
    assert columns["b"].tolist() == ["x", ""]
    frame = columns.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    np.testing.assert_array_equal(frame["c"], [np.nan, 1.0])


def test_without_pandas_a_sentence_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(jaxvff.UserError, match="pip install pandas; without it"):
        Columns([{"a": 1}]).to_pandas()


def test_evaluation_plays_what_was_reported_last(run: Run) -> None:
    again = jaxvff.load(run.folder)
    assert again.complete
    for now, before in zip(again.evaluate(), run.results, strict=True):
        np.testing.assert_allclose(now.test_return, before.test_return)
        np.testing.assert_allclose(now.median_seed.q_tot, before.median_seed.q_tot, rtol=1e-5)


def test_evaluation_plays_as_many_episodes_as_are_asked_for(tmp_path: Path) -> None:
    """A run with more episodes in its reports tells the same."""
    few, many = (
        jaxvff.train(method="vdn", env="contextual", run_dir=tmp_path / f"run_{n}",
                     **{**TINY, "total_steps": 20, "eval_episodes": n})
        for n in (2, 300)
    )  # fmt: skip
    asked = few.evaluate(300)[0].test_return
    np.testing.assert_allclose(asked, many.results[0].test_return, rtol=1e-5)
    assert not np.allclose(asked, few.results[0].test_return)
    with pytest.raises(jaxvff.UserError, match="eval_episodes=0 is out of range"):
        few.evaluate(0)


def test_pictures_are_drawn_for_a_notebook(run: Run, tmp_path: Path) -> None:
    for picture in (run.plot_curves(), run.plot_tables(), run.plot_rates()):
        assert picture._repr_png_().startswith(b"\x89PNG")
    picture.save(tmp_path / "rates.png")
    assert (tmp_path / "rates.png").read_bytes() == picture.png


def test_the_policy_of_a_seed_acts_by_its_utilities(run: Run) -> None:
    """The median seed's utilities are in its record."""
    record = run.results[1]
    policy = run.policy(record.median_seed.seed, {"lr": 1e-2})
    best = policy.act([[1, 0], [1, 0]])
    assert best.tolist() == np.argmax(record.median_seed.utilities, axis=-1).tolist()
    assert policy.about["sweep"] == {"lr": 1e-2}
    assert policy.about["env_steps"] == 60
    assert repr(policy) == f"Policy(method=qmix, env=matrix, seed={record.median_seed.seed})"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sweep": {}}, r"has 2 sweep values with \{\}; choose one of: lr=0.001; lr=0.01"),
        ({"sweep": {"lr": 1}}, r"has 0 sweep values with \{'lr': 1\}; choose one of: lr=0.001; lr"),
        ({"sweep": {"gamma": 1}}, r"gamma=1 chooses nothing: .* sweeps lr"),
        ({"sweep": {"lr": 1e-3}, "seed": 7}, r"seed=7 is none of the run's; choose one of 0 to 1"),
    ],
)
def test_a_policy_that_is_not_there_is_told(run: Run, asked: dict, said: str) -> None:
    with pytest.raises(jaxvff.UserError, match=said):
        run.policy(**asked)


def test_export_writes_what_the_api_gives(run: Run, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "policy"
    assert main(["export", f"run={run.folder}", f"to={folder}", "seed=1", "lr=0.001"]) == 0
    assert f"{folder}/act.py" in capsys.readouterr().out
    obs = np.tile([1.0, 0.0], (2, 1))
    mine, theirs = run.policy(1, {"lr": 1e-3}), jaxvff.load_policy(folder)
    mine.act(obs)
    theirs.act(obs)
    np.testing.assert_array_equal(mine.utilities, theirs.utilities)
    assert theirs.about["actions"] == ["A", "B", "C"]
    assert main(["export", f"run={run.folder}"]) == 2
    assert "export needs to=" in capsys.readouterr().err


def test_a_team_that_draws_from_the_state_has_no_policy_of_agents(tmp_path: Path) -> None:
    from jaxvff.runs import folder as runs

    runs.new_run(["method=maven", "env=matrix/a", "seeds=1", f"run_dir={tmp_path}/run"])
    with pytest.raises(jaxvff.UserError, match="which no agent sees, so that it has no policy"):
        jaxvff.load(tmp_path / "run").policy()


def test_results_that_are_not_there_yet_are_told(tmp_path: Path) -> None:
    from jaxvff.runs import folder as runs

    runs.new_run(["env=matrix/a", "seeds=1", f"run_dir={tmp_path}/run"])
    begun = jaxvff.load(tmp_path / "run")
    assert not begun.complete
    with pytest.raises(jaxvff.UserError, match=r"has no table.json, .* evaluate it"):
        _ = begun.results
    with pytest.raises(jaxvff.UserError, match="has no checkpoint yet"):
        begun.evaluate()


def test_a_record_of_episodes_comes_back_from_its_file(tmp_path: Path) -> None:
    scores = np.array([1.0, np.nan, 3.0])
    record = EpisodeRecord(
        sweep={"env": "smax/3m"}, method="qmix", env={"kind": "smax", "map": "3m"}, steps=100,
        seed=[0, 1, 2], timing={"wall_s": 1.0}, stopped_at=np.array([-1, 50, -1]),
        test_return=scores, env_steps=np.array([99, 50, 100]), stopped=1,
        aggregate={"test_return": interval(scores[:, None])}, per_seed={"test_return": scores},
    )  # fmt: skip
    (tmp_path / TABLE_FILE).write_text(json.dumps({"results": [record.to_json()]}))
    (back,) = table_file.read_records(tmp_path)
    assert isinstance(back, EpisodeRecord)
    assert back.to_json() == record.to_json()
    np.testing.assert_array_equal(back.test_return, scores)
    assert records.from_json(record.to_json()).aggregate == record.aggregate


FOREIGN = [
    ["env=custom", "n_envs=1", "segment_length=101", *own]
    for own in (
        ["env.entry=antigravity:fly", "total_steps=200", "sweep.env.penalty=[0,1]"],
        ["env.entry=antigravity:land", "total_steps=100", "sweep.env.penalty=[0,2]"],
    )
]


def foreign_run(folder: Path, *, steps: int = 200) -> Path:
    """A run of two parts whose games are somebody's code, as its files would have it.

    A sweep value of each part has the same label. `steps` were done in the first part.
    """
    folder.mkdir()
    (folder / "run.yaml").write_text(json.dumps({"command": "train", "parts": FOREIGN}))
    told = []
    for k, part in enumerate(FOREIGN):
        values = sweep.expand(part)
        job = folder / f"0{k}_job"
        job.mkdir()
        (job / CONFIG_FILE).write_text(
            "---\n".join(f"# {label}\n{config.to_yaml(one)}" for label, one in values)
        )
        with (job / METRICS_FILE).open("w") as file:
            for i, (label, one) in enumerate(values):
                scores = np.array([10.0 * k + i, np.nan])
                record = EpisodeRecord(
                    sweep=label, method="nmqmix", env=one.env, steps=(steps, 100)[k], seed=[0, 1],
                    timing={}, stopped_at=np.array([-1, 50]), test_return=scores,
                    env_steps=np.array([100, 50]), stopped=1,
                    aggregate={"test_return": interval(scores[:, None])},
                    per_seed={"test_return": scores},
                )  # fmt: skip
                line = {"step": 100, "sweep": label, "seed": [0, 1], "test_return": scores}
                file.write(json.dumps(plain(line)) + "\n")
                told.append(record.to_json())
    (folder / TABLE_FILE).write_text(json.dumps({"results": told}))
    return folder


READING = """
import sys, jaxvff
run = jaxvff.load(sys.argv[1])
print(run.complete, run.curves["test_return"].tolist(), [r.stopped for r in run.results])
print(*(name for name in ("jax", "matplotlib", "antigravity") if name in sys.modules))
"""


def test_results_are_read_without_jax_and_without_running_code_of_the_folder(
    tmp_path: Path,
) -> None:
    folder = foreign_run(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", READING, str(folder)], capture_output=True, text=True, check=True
    )
    read, imported = done.stdout.splitlines()
    assert read == "True [0.0, nan, 1.0, nan, 10.0, nan, 11.0, nan] [1, 1, 1, 1]"
    assert imported == ""
    with pytest.raises(jaxvff.UserError, match=r"names code that would be run .* add trust=true"):
        jaxvff.load(folder).evaluate()


def test_sweep_values_of_one_label_keep_their_own_curves(tmp_path: Path) -> None:
    """Two parts of a run may sweep the same key over the same value, in different games."""
    drawn = list(jaxvff.load(foreign_run(tmp_path / "run"))._curves())
    returns = [[line["test_return"][0] for line in curve.lines] for curve in drawn]
    assert returns == [[0.0], [1.0], [10.0], [11.0]]


def test_a_run_is_complete_when_each_sweep_value_is(tmp_path: Path) -> None:
    """An interrupted part, and a table from before its last part began."""
    assert not jaxvff.load(foreign_run(tmp_path / "cut", steps=100)).complete
    whole = foreign_run(tmp_path / "whole")
    assert jaxvff.load(whole).complete
    told = json.loads((whole / TABLE_FILE).read_text())
    (whole / TABLE_FILE).write_text(json.dumps({"results": told["results"][:-1]}))
    assert not jaxvff.load(whole).complete
    (whole / TABLE_FILE).write_text('{"results": [{"steps": 100}]}')
    with pytest.raises(jaxvff.UserError, match=r"table.json cannot be read \(KeyError: 'sweep'\)"):
        _ = jaxvff.load(whole).complete


@pytest.mark.slow
def test_training_is_what_the_command_line_does_and_goes_on_as_it_does(tmp_path: Path) -> None:
    own = {k: v for k, v in TINY.items() if k not in ("progress", "total_steps")}
    mine = jaxvff.train(**TINY, run_dir=str(tmp_path / "mine"))
    texts = [f"{key}={value}" for key, value in own.items()]
    assert main(["train", *texts, "total_steps=60", f"run_dir={tmp_path}/theirs"]) == 0
    theirs = tmp_path / "theirs"
    assert [*map(without_time, lines(mine.folder))] == [*map(without_time, lines(theirs))]
    assert {p.name for p in mine.folder.iterdir()} == {p.name for p in theirs.iterdir()}
    mine = jaxvff.train(resume=mine.folder, total_steps=100, progress=False)
    assert main(["train", f"resume={theirs}", "total_steps=100"]) == 0
    assert [*map(without_time, lines(mine.folder))] == [*map(without_time, lines(theirs))]
    assert len(lines(theirs)) == 5


# Settings that Python gives.

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\"'\\\n\r"), max_size=12).filter(
    lambda s: "${" not in s
)
VALUES = st.recursive(
    st.booleans() | st.none() | st.integers(-10**9, 10**9) | WORDS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_a_value_in_a_list_is_read_as_it_was_given(values: list) -> None:
    (override,) = from_values({"x": values})
    assert override.value == values
    assert parse([override.text])[0].value == values  # as run.yaml keeps it


@given(WORDS.filter(lambda s: s.strip()))
def test_a_text_is_read_as_that_text_or_as_the_word_that_it_is(text: str) -> None:
    (override,) = from_values({"run_dir": text})
    if isinstance(override.value, str):
        assert override.value == text
    else:  # 007, true: an option that takes a text takes it as it was given
        assert override.value_text == text


def test_values_of_numpy_and_paths_are_settings_and_others_are_refused() -> None:
    given_ = {
        "lr": np.float32(0.5),
        "env.payoff": np.eye(2),
        "run_dir": Path("a/b"),
        "shared": True,
    }
    assert [o.value for o in from_values(given_)] == [0.5, [[1.0, 0.0], [0.0, 1.0]], "a/b", True]
    with pytest.raises(jaxvff.UserError, match="lr is a object; settings are texts, numbers"):
        from_values({"lr": object()})
    with pytest.raises(jaxvff.UserError, match="n_step=5 does nothing with returns=td_lambda"):
        jaxvff.train(n_step=5)


# Progress.


def test_a_notebook_shows_a_bar_that_is_updated_in_place() -> None:
    capture = pytest.importorskip("IPython.utils.capture")
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.instance()
    with capture.capture_output() as shown_:
        bar = shown.NotebookBar(total=200)
        bar.update(what="qmix <a>", speed="10 seed-steps/s", done=50)
        bar.say("seed 3 stopped")
    first = shown_.outputs[0].data["text/html"]
    assert "value='0' max='200'" in first
    text = bar.text()
    assert text.startswith("<div>seed 3 stopped</div>")
    assert "value='50' max='200'" in text
    assert "qmix &lt;a&gt; · 25% · 10 seed-steps/s" in text
