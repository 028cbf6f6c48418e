"""What the documents show is what happens."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.command_line import once

ROOT = Path(__file__).resolve().parent.parent
# Pages that docs/site_hooks.py makes.
MADE = {"reference/command-line.md", "reference/presets.md", "reference/code.md"}
CODE = r"```python\n(.*?)```\n"

Line = dict[str, Any]  # of metrics.jsonl


class Page(NamedTuple):
    """A worked example: a new file, a row in a table, and the command that uses them."""

    file: str  # path in the tree
    source: str
    table: str
    table_file: str  # path in the tree
    row: str
    command: list[str]  # the last one that the page shows, without "jaxvff"


class Trained(NamedTuple):
    """What a command of a page left behind."""

    results: list[dict[str, Any]]  # of table.json
    lines: list[Line]
    stdout: str


class Example(NamedTuple):
    """How a page is tried."""

    short: str  # keys that make its command a run of seconds
    proves: Callable[[Trained], None]  # asserts that the new part has done its work
    refused: str  # a key that is wrong
    because: str  # what the message says of it


def read(name: str) -> Page:
    """The example of a page; a page has one file, one row, and no further Python."""
    text = (ROOT / "docs" / f"{name}.md").read_text()
    ((file, source),) = re.findall(rf"New file `(.*?)`:\n\n{CODE}", text, re.DOTALL)
    ((table, table_file, row),) = re.findall(
        rf"Row in `(.*?)`, in `(.*?)`:\n\n{CODE}", text, re.DOTALL
    )
    assert text.count("```python") == 2, "a page shows one file and one row"
    assert len(row.splitlines()) == 1
    command = re.findall(r"```\njaxvff (.*?)\n```", text)[-1]
    return Page(file, source, table, table_file, row, shlex.split(command))


def where(tree: Path, path: str) -> Path:
    """A path of the repository in a tree that is one package, as in the wheel."""
    return tree / path if path.startswith("jaxvff/") else tree / "jaxvff" / path


def copy_tree(tree: Path) -> None:
    """The package as the wheel has it, without what Python compiled."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "jaxvff", tree / "jaxvff", ignore=unwanted)
    for part in ("envs", "configs"):
        shutil.copytree(ROOT / part, tree / "jaxvff" / part, ignore=unwanted)


def apply(page: Page, tree: Path) -> None:
    """Write the new file, and put the row at the head of its table."""
    new = where(tree, page.file)
    assert not new.exists()
    new.write_text(page.source)
    path = where(tree, page.table_file)
    head, opening, rest = re.split(
        rf"(^{page.table}: [^{{]*\{{)", path.read_text(), flags=re.MULTILINE
    )
    path.write_text(f"{head}{opening}\n{page.row}{rest}")


def contents(tree: Path) -> dict[str, str]:
    """The text of every file of a tree."""
    files = (p for p in tree.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(tree).as_posix(): p.read_text() for p in files}


def rows(source: str, table: str) -> tuple[list[str], str]:
    """The rows of a table in a module, and all else that the module says; without comments."""
    module = ast.parse(source)
    (value,) = (
        node.value
        for node in module.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table
    )
    entries = next(node for node in ast.walk(value) if isinstance(node, ast.Dict))
    pairs = zip(entries.keys, entries.values, strict=True)
    texts = [f"{ast.unparse(key)}: {ast.unparse(value)}" for key, value in pairs]
    entries.keys, entries.values = [], []
    return texts, ast.unparse(module)


def jaxvff(tree: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """The command line of a tree, in the folder above it."""
    own = {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "jaxvff", *args],
        cwd=tree.parent,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )


def column(trained: Trained, name: str) -> np.ndarray:
    """A number of every report and seed, `[reports, seeds]`, where it was measured."""
    found = [line[name] for line in trained.lines if None not in line[name]]
    assert found, f"{name} was never measured"
    return np.array(found, float)


def a_sum_of_weighted_utilities(trained: Trained) -> None:
    """In a single state Q_tot[i, j] is a sum of a row and of a column, and rises with both."""
    (result,) = trained.results
    assert result["method"] == "weighted_sum"
    q_tot = np.array(result["median_seed"]["q_tot"])
    utilities = np.array(result["median_seed"]["utilities"])
    spread = np.ptp(q_tot)
    assert spread > 0.01
    mixed = q_tot - q_tot[:1] - q_tot[:, :1] + q_tot[0, 0]
    assert np.abs(mixed).max() < 1e-4 * spread
    for i, along in enumerate((q_tot[:, 0], q_tot[0])):
        slopes = np.diff(along) / np.diff(utilities[i])
        assert slopes.min() > 0
        np.testing.assert_allclose(slopes, slopes[0], rtol=1e-2)


def a_linear_loss_of_large_errors(trained: Trained) -> None:
    """δ |e| - δ²/2 <= h(e) <= δ |e| for every error, hence for the means of every report."""
    delta = 0.5
    # Losses are in the unit of values: returns of Game A are 12 or 0, and 3 or 0 there.
    loss, error = column(trained, "loss"), column(trained, "td_error_abs") / 4
    assert error.max() > 1.5, "with small errors the loss is a square, so this proves nothing"
    assert (loss <= delta * error * (1 + 1e-5)).all()
    assert (loss >= (delta * error - delta**2 / 2) * (1 - 1e-5)).all()


def a_bonus_that_falls(trained: Trained) -> None:
    bonus = column(trained, "bonus")
    assert (bonus > 0).all()
    assert (bonus <= 1).all()
    assert (bonus[-1] < bonus[0] / 2).all()


def learning_without_a_replay(trained: Trained) -> None:
    assert trained.stdout.startswith("memory: ")
    assert "networks: parameters, target network, optimiser" in trained.stdout
    assert "replay" not in trained.stdout
    (result,) = trained.results
    assert result["per_seed"]["optimal"] == [True, True]
    assert column(trained, "loss").shape == (5, 2)  # from the first report on
    assert (column(trained, "loss")[-1] < 0.1 * column(trained, "loss")[0]).all()


def agents_that_meet(trained: Trained) -> None:
    free, costly = trained.results
    assert [free["sweep"], costly["sweep"]] == [{"env.cost": 0.0}, {"env.cost": 0.1}]
    assert free["timing"]["lanes_in_program"] == 4  # both costs are in one program
    won, length = (np.array(costly["per_seed"][f"test_{k}"]) for k in ("win_rate", "length"))
    np.testing.assert_allclose(costly["per_seed"]["test_return"], won - 0.1 * length, atol=1e-5)
    np.testing.assert_allclose(free["per_seed"]["test_return"], free["per_seed"]["test_win_rate"])
    assert column(trained, "train_win_rate").max() > 0.2
    assert (column(trained, "train_win_rate") <= 1).all()
    assert (length <= 8).all()


def a_field_that_workers_play(trained: Trained) -> None:
    (result,) = trained.results
    assert result["env"] == {"kind": "lbforaging", "size": 5, "workers": 1}
    assert (column(trained, "worker_restarts") == 0).all()
    assert (column(trained, "rejected_episodes") == 0).all()
    assert column(trained, "train_return").max() > 0, "nobody ate, so this proves nothing"
    assert all(0 <= x <= 1.0001 for x in result["per_seed"]["test_return"])
    assert all(0 < x <= 25 for x in result["per_seed"]["test_length"])
    assert np.isfinite(column(trained, "loss")).all()


SMALL = "hidden_dim=8 seeds=2 batch_size=16 learn_start=16 buffer_size=64"
EXAMPLES = {
    "adding-a-mixer": Example(
        f"{SMALL} total_steps=400 eval_interval=100",
        a_sum_of_weighted_utilities,
        "method.hypernet_dims=32",
        "method.hypernet_dims is no option of weighted_sum; did you mean hypernet_dim?",
    ),
    "adding-a-loss": Example(
        f"{SMALL} total_steps=400 eval_interval=100",
        a_linear_loss_of_large_errors,
        "method.delta=-1",
        "method.delta=-1 is out of range; expected a value in (0, ∞), such as 1.0",
    ),
    "adding-a-bonus": Example(
        f"{SMALL} total_steps=2000 eval_interval=200",
        a_bonus_that_falls,
        "bonus=hash_counts",
        "bonus='hash_counts' is unknown; did you mean hash_count?",
    ),
    "adding-a-learner": Example(
        "env=matrix/file env.payoff=[[2,1],[1,0]] hidden_dim=16 seeds=2 lr=0.01 "
        "total_steps=16000 eval_interval=3200",
        learning_without_a_replay,
        "bonus=rnd",
        "bonus=rnd needs learner=replay; learner=on_policy takes bonus=none",
    ),
    "adding-an-environment": Example(
        f"{SMALL} n_envs=4 total_steps=3200 eval_interval=640",
        agents_that_meet,
        "env.cells=1",
        "env.cells=1 is out of range; expected a value in [2, ∞), such as 5",
    ),
    "adding-a-host-environment": Example(
        "env.workers=1 hidden_dim=8 seeds=1 batch_size=4 learn_start=8 buffer_size=16 "
        "total_steps=8240 eval_interval=1648 eval_episodes=8",
        a_field_that_workers_play,
        "env.size=4",
        "env.size=4 is out of range; expected a value in [5, ∞), such as 8",
    ),
}


def test_every_page_about_adding_is_tried() -> None:
    assert {path.stem for path in (ROOT / "docs").glob("adding-*.md")} == EXAMPLES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_worked_example_is_one_file_and_one_row_and_trains(name: str, tmp_path: Path) -> None:
    page, example, tree = read(name), EXAMPLES[name], tmp_path / "tree"
    copy_tree(tree)
    before = contents(tree)
    apply(page, tree)
    after = contents(tree)

    # One file more, and one row more in another.
    new = where(tree, page.file).relative_to(tree).as_posix()
    table = where(tree, page.table_file).relative_to(tree).as_posix()
    assert after.keys() - before.keys() == {new}
    assert {path for path, text in before.items() if after[path] != text} == {table}
    (old_rows, old_rest), (new_rows, new_rest) = (
        rows(texts[table], page.table) for texts in (before, after)
    )
    assert len(new_rows) == len(old_rows) + 1
    assert set(old_rows) < set(new_rows)
    assert new_rest == old_rest

    # The page's own command trains with it.
    short = shlex.split(example.short)
    done = jaxvff(tree, *page.command, *short, "run_dir=run")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((folder / "table.json").read_text())["results"]
    assert all(stopped == -1 for result in results for stopped in result["stopped_at"])
    assert all(math.isfinite(x) for result in results for x in result["test_return"])
    example.proves(Trained(results, lines, done.stdout))

    # What is wrong is refused by its name.
    refused = once([*page.command, *short, example.refused, "run_dir=refused"])
    done = jaxvff(tree, *refused)
    assert done.returncode == 2
    assert example.because in done.stderr
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_code_of_a_worked_example_is_in_the_style_of_the_rest(
    name: str, tmp_path: Path
) -> None:
    page = read(name)
    path = tmp_path / Path(page.file).name
    path.write_text(page.source)
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--config", ROOT / "pyproject.toml", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_plain_learner_learns_a_matrix_game() -> None:
    """With the best joint action of 9, which earns 8; a random one earns 2.3 in the mean."""
    spec = importlib.util.spec_from_file_location("plain", ROOT / "docs/examples/plain_learner.py")
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    states, losses = jax.jit(jax.vmap(plain.train))(jnp.arange(4))
    assert (jax.vmap(plain.greedy_return)(states) == 8).all()
    assert (losses[:, -100:].mean(1) < 0.02 * losses[:, :100].mean(1)).all()


def test_every_config_field_is_documented() -> None:
    import dataclasses

    from jaxvff.settings.config import Config

    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [
        f.name
        for f in dataclasses.fields(Config)
        if f"`{f.name}`" not in text and f"`{f.name}=`" not in text
    ]
    assert not missing


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            there = (path.parent / target).resolve()
            made = (
                there.relative_to(ROOT / "docs").as_posix() in MADE if "reference" in target else 0
            )
            assert made or there.exists(), f"{path.name} links to {target}"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = set(re.findall(r"[\w/-]+\.md", nav))
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert pages <= listed, "a page that nobody finds"
    assert listed - pages == MADE


def test_every_study_has_a_question_a_figure_an_answer_and_a_command_in_this_order() -> None:
    figure, command = r"!\[.+\]\(.+\)|```text", r"`(uv run jaxvff|python benchmarks/)"
    parts = (r"\*\*Question\.\*\*", figure, r"\*\*Answer\.\*\*", r"\*\*Command\.\*\*", command)
    for path in (ROOT / "docs" / "results").glob("*.md"):
        found = [re.search(part, path.read_text()) for part in parts]
        at = [match.start() if match else -1 for match in found]
        assert -1 not in at, f"{path.name} lacks {parts[at.index(-1)]}"
        assert at == sorted(at), path.name


@pytest.mark.slow
def test_the_commands_of_the_first_page_do_what_it_says(tmp_path: Path) -> None:
    """Each line as it stands; what is trained is shorter."""
    text = (ROOT / "docs" / "start.md").read_text()
    lines = [
        line
        for block in re.findall(r"```\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    commands = [line.removeprefix("jaxvff ") for line in lines if line.startswith("jaxvff ")]
    assert [c.split()[0] for c in commands] == ["train", "train", "report", "train", "evaluate"]
    asked = []
    for command in commands:
        short = ["total_steps=600", "seeds=2"] if "matrix" in command else []
        short += ["total_steps=10000", "seeds=1"] if "smax" in command else []
        asked.append(once([*shlex.split(command), *short]))
    # In one process: to start and to import takes as long as the rest.
    script = "import sys\nfrom jaxvff.cli.main import main\n"
    script += f"for command in {asked}:\n    assert main(command) == 0, command"
    tree = tmp_path / "tree"
    copy_tree(tree)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "report" / "index.html").read_text()
    assert "qplex" in report
    assert "runs/nmqmix" in report
    assert list((tmp_path / "runs" / "3m").glob("greedy_*.gif"))


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(tmp_path: Path) -> None:
    """As it stands, but shorter; the line that stands for a loop of one's own is played once."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    short = example.replace("seeds=4)", "seeds=1, total_steps=9000, eval_interval=9000)")
    assert short != example
    loop = (
        "import numpy as np\n"
        "n, layout = 1, policy.layout\n"
        "obs = np.zeros((n, layout.n_agents, layout.obs_size))\n"
        "avail = np.ones((n, layout.n_agents, layout.n_actions), bool)\n"
    )
    before, line = short.split("# actions = ")
    code = f"{before}{loop}actions = {line}print(actions.shape)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "vdn on smax/3m" in done.stdout
    assert done.stdout.endswith("(1, 3)\n")
