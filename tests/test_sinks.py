"""TensorBoard and Weights & Biases: every seed apart, nothing twice, and no harm to the training."""

from __future__ import annotations

import math
import shutil
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.runs import execute, sinks
from jaxvff.runs import folder as runs
from jaxvff.runs.plan import plan, signature
from jaxvff.runs.sinks import Destination
from jaxvff.settings import config
from tests.test_run import metrics

TINY = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
        "total_steps=80", "eval_interval=40", "epsilon_steps=100"]  # fmt: skip
SWEEP = [{"lr": 0.1}, {"lr": 0.2}]


def place(
    folder: Path, *overrides: str, sweep=SWEEP, resume_step: int | None = None
) -> Destination:
    folder.mkdir(exist_ok=True)
    one = config.load(["seeds=2", *overrides])
    return Destination(folder, "mine", [(label, one) for label in sweep], resume_step)


def report(sink: sinks.Sink, step: int, sweep=SWEEP) -> None:
    """Numbers that tell sweep value, seed and step."""
    for i, label in enumerate(sweep):
        numbers = np.array([10_000 * i + step, 10_000 * i + step + 0.5])
        sink.write(step, label, [7, 8], {"x": numbers, "late": numbers * np.nan, "wall_s": 1.5})


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a folder: a START event hides what it says has come later."""
    from tensorboardX.proto.event_pb2 import Event

    shown: list[tuple[int, float]] = []
    for path in sorted(folder.glob("events*"), key=lambda p: int(p.suffix[1:])):
        data = path.read_bytes()
        while data:  # length, checksum, event, checksum
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            if event.HasField("session_log"):
                shown = [(step, x) for step, x in shown if step < event.step]
            values = [v.simple_value for v in event.summary.value if v.tag == tag]
            shown += [(event.step, x) for x in values]
    return shown


class FakeWandb:
    """wandb as the sink uses it: runs by id, whose steps only rise."""

    def __init__(self) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.inits: list[dict] = []
        self.login = lambda: True
        self.mode = "online"
        self.Settings = SimpleNamespace
        self.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def init(self, **options) -> SimpleNamespace:
        assert (options["reinit"], options["resume"]) == ("create_new", "allow")
        self.inits.append(options)
        run = SimpleNamespace(step=0, points=[], finished=False)
        run = self.runs.setdefault(options["id"], run)
        run.log = lambda numbers, step: self.log(run, numbers, step)
        run.finish = lambda: setattr(run, "finished", True)
        return run

    @staticmethod
    def log(run: SimpleNamespace, numbers: dict, step: int) -> None:
        assert step >= run.step
        run.points.append((step, numbers["x"]))
        run.step = step


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_tensorboard_has_a_folder_per_sweep_value_and_seed(tmp_path: Path) -> None:
    sink = sinks.TensorBoard(place(tmp_path))
    report(sink, 40)
    report(sink, 80)
    sink.close()
    root = tmp_path / "tensorboard"
    folders = [str(p.relative_to(root)) for p in sorted(root.glob("*/*"))]
    assert folders == [
        "00_lr=0.1/seed_7",
        "00_lr=0.1/seed_8",
        "01_lr=0.2/seed_7",
        "01_lr=0.2/seed_8",
    ]
    assert points(root / "00_lr=0.1/seed_8", "x") == [(40, 40.5), (80, 80.5)]
    assert points(root / "01_lr=0.2/seed_7", "x") == [(40, 10_040), (80, 10_080)]
    assert points(root / "00_lr=0.1/seed_7", "wall_s") == [(40, 1.5), (80, 1.5)]
    assert points(root / "00_lr=0.1/seed_7", "late") == [], "what was not measured is no point"


def test_a_resumed_run_shows_no_point_twice_in_tensorboard(tmp_path: Path) -> None:
    """Points came after the checkpoint at 60, then a crash; the resumed run brings them again."""
    before = sinks.TensorBoard(place(tmp_path, sweep=[{}]))
    for step in (40, 60, 80, 100):
        report(before, step, [{}])  # not closed: it crashed
    after = sinks.TensorBoard(place(tmp_path, sweep=[{}], resume_step=60))
    for step in (80, 100, 120):
        report(after, step, [{}])
    after.close()
    shown = points(tmp_path / "tensorboard" / "seed_7", "x")
    assert shown == [(step, step) for step in (40, 60, 80, 100, 120)]


def test_a_run_without_a_checkpoint_starts_again_in_tensorboard(tmp_path: Path) -> None:
    for _ in range(2):
        report(sinks.TensorBoard(place(tmp_path, sweep=[{}])), 40, [{}])
    assert points(tmp_path / "tensorboard" / "seed_7", "x") == [(40, 40)]


def test_labels_that_make_no_folder_name_do_not_merge(tmp_path: Path) -> None:
    sweep = [{"env": "matrix/a", "payoff": "1" * 200}, {"env": "matrix/a", "payoff": "1" * 201}]
    sink = sinks.TensorBoard(place(tmp_path, sweep=sweep))
    report(sink, 40, sweep)
    folders = sorted((tmp_path / "tensorboard").iterdir())
    assert [points(f / "seed_7", "x") for f in folders] == [[(40, 40)], [(40, 10_040)]]


def test_wandb_has_a_run_per_sweep_value_and_seed(tmp_path: Path, wandb: FakeWandb) -> None:
    sink = sinks.Wandb(place(tmp_path, "wandb=proj", "method=qmix"))
    report(sink, 40)
    report(sink, 80)
    sink.close()
    assert [run.points for run in wandb.runs.values()] == [
        [(40, 40), (80, 80)], [(40, 40.5), (80, 80.5)],
        [(40, 10_040), (80, 10_080)], [(40, 10_040.5), (80, 10_080.5)],
    ]  # fmt: skip
    assert all(run.finished for run in wandb.runs.values())
    assert {(i["project"], i["group"], i["dir"]) for i in wandb.inits} == {
        ("proj", "mine", str(tmp_path))
    }
    assert [i["name"] for i in wandb.inits][:2] == ["qmix lr=0.1 seed 7", "qmix lr=0.1 seed 8"]
    assert wandb.inits[3]["config"]["seed"] == 8
    assert wandb.inits[3]["config"]["sweep"] == {"lr": 0.2}


def test_a_resumed_run_sends_wandb_no_point_twice(tmp_path: Path, wandb: FakeWandb) -> None:
    before = sinks.Wandb(place(tmp_path, sweep=[{}]))
    for step in (40, 60, 80):
        report(before, step, [{}])
    for run in wandb.runs.values():
        run.step += 1  # what a resumed wandb run says
    after = sinks.Wandb(place(tmp_path, sweep=[{}], resume_step=60))
    for step in (80, 100):
        report(after, step, [{}])
    assert len(wandb.runs) == 2
    assert [step for step, _ in next(iter(wandb.runs.values())).points] == [40, 60, 80, 100]


def test_runs_in_other_folders_are_other_wandb_runs(tmp_path: Path, wandb: FakeWandb) -> None:
    for name in ("a", "b"):
        report(sinks.Wandb(place(tmp_path / name, sweep=[{}])), 40, [{}])
    assert len(wandb.runs) == 4


def test_the_real_wandb_keeps_seeds_apart_offline(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    given = place(tmp_path, "wandb=proj", sweep=[{}])
    sinks.check(given.values[0][1])  # asks for no key
    sink = sinks.Wandb(given)
    report(sink, 40, [{}])
    sink.close()
    token = (tmp_path / "wandb_id.txt").read_text()
    written = sorted(p.name for p in tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert written == [f"run-{token}-0-7.wandb", f"run-{token}-0-8.wandb"]


def run(folder: Path, *overrides: str, resume: bool = False) -> list[dict]:
    """Train in this process; the lines of metrics.jsonl."""
    if resume:
        jobs = runs.resumed_run(folder, "train", overrides)
    else:
        jobs = runs.new_run([*TINY, f"run_dir={folder}", *overrides])[1]
    list(execute.execute(folder, jobs, resume=resume))
    return metrics(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run with TensorBoard."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    run(folder, "tensorboard=true")
    return folder


def test_tensorboard_gets_what_the_metrics_file_gets(trained: Path) -> None:
    lines = metrics(trained)
    assert [line["step"] for line in lines] == [40, 80]
    for i, seed in enumerate((0, 1)):
        for key in ("test_return", "loss"):
            shown = points(trained / "tensorboard" / f"seed_{seed}", key)
            told = [(line["step"], line[key][i]) for line in lines if line[key][i] is not None]
            np.testing.assert_allclose(shown, told, rtol=1e-6)  # metrics.jsonl has seven digits


@pytest.mark.slow
def test_a_sink_that_fails_is_named_once_and_stops_nothing_else(
    tmp_path: Path, trained: Path, wandb: FakeWandb, monkeypatch, capsys
) -> None:
    """The disk is full for TensorBoard's second report; wandb and metrics.jsonl go on."""
    from tensorboardX.event_file_writer import EventsWriter

    real = EventsWriter.write_event

    def write_event(self, event):
        if event.step > 40:
            raise OSError(28, "No space left on device")
        return real(self, event)

    monkeypatch.setattr(EventsWriter, "write_event", write_event)
    monkeypatch.setattr(FakeWandb, "log", staticmethod(lambda r, n, step: r.points.append(step)))
    overrides = ("tensorboard=true", "wandb=proj", "total_steps=120")
    lines = run(tmp_path / "run", *overrides)
    assert [line["step"] for line in lines] == [40, 80, 120]
    assert lines[:2] == metrics(trained)
    assert [r.points for r in wandb.runs.values()] == [[40, 80, 120]] * 2
    warnings = [line for line in capsys.readouterr().err.splitlines() if "jaxvff:" in line]
    assert len(warnings) == 1
    assert "tensorboard stopped" in warnings[0] and "No space left" in warnings[0]


@pytest.mark.parametrize(
    ("override", "package"), [("tensorboard=true", "tensorboardX"), ("wandb=proj", "wandb")]
)
def test_a_missing_package_is_told_before_anything_happens(
    tmp_path: Path, override: str, package: str, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(execute, "open_program", lambda *args: pytest.fail("a program was made"))
    extra = override.split("=")[0]
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", override)
    assert str(error.value).startswith(override)
    assert f"uv sync --extra {extra}" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_without_a_login_wandb_says_so_before_anything_happens(
    tmp_path: Path, wandb: FakeWandb
) -> None:
    def login() -> None:
        raise ValueError("No API key\nconfigured")

    wandb.login = login
    with pytest.raises(
        UserError, match=r"No API key configured; run wandb login, or set WANDB_MODE"
    ):
        run(tmp_path / "run", "wandb=proj")
    assert not (tmp_path / "run").exists()
    wandb.mode = "offline"
    sinks.check(config.load(["wandb=proj"]))


@pytest.mark.slow
def test_a_run_can_be_resumed_without_its_sink(trained: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="tensorboardX"):
        run(tmp_path / "run", "total_steps=120", resume=True)
    lines = run(tmp_path / "run", "total_steps=120", "tensorboard=false", resume=True)
    assert [line["step"] for line in lines] == [40, 80, 120]
    assert lines[:2] == metrics(trained)


def test_sinks_change_neither_fingerprint_nor_program() -> None:
    (bare,), (full,) = plan(TINY), plan([*TINY, "tensorboard=true", "wandb=proj"])
    assert bare.fingerprint() == full.fingerprint()
    assert bare.fingerprint() != plan([*TINY, "n_step=4"])[0].fingerprint()
    assert signature(bare.values[0]) == signature(full.values[0])


@pytest.mark.parametrize("override", ["sweep.tensorboard=[true,false]", "sweep.wandb=[a,b]"])
def test_sinks_cannot_be_swept(override: str) -> None:
    with pytest.raises(UserError, match="is no sweep"):
        plan([*TINY, override])


def test_of_seed_leaves_out_what_is_not_finite() -> None:
    metrics = {"a": np.array([1.0, np.nan]), "b": np.array([np.inf, 2]), "c": 3, "d": [True, False]}
    assert sinks.of_seed(metrics, 0) == {"a": 1, "c": 3, "d": 1}
    assert all(math.isfinite(x) for x in sinks.of_seed(metrics, 1).values())
