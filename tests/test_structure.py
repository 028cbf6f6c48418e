"""The house rules that a tool can hold: imports run one way, one package in the wheel."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each module may import from the lines above its own, never from below.
LAYERS = [
    ["types"],
    ["envs"],
    ["configs"],
    ["scan", "log", "aggregate", "bridge.process", "bridge.packing"],
    ["nets", "explore"],
    ["bonus", "replay", "targets", "search", "rollout", "mixers.vdn", "mixers.iql", "mixers.qmix"],
    ["mixers.qatten", "mixers.qplex", "mixers.qtran", "mixers.wqmix", "mixers.joint", "losses"],
    ["ordering"],
    ["methods"],
    ["options"],
    ["config", "presets"],
    ["sharding", "sinks"],
    ["learner", "payoff", "evaluate", "checkpoint", "bridge.pool"],
    ["bridge.play"],
    ["train"],
    ["bridge.program"],
    ["plan"],
    ["memory"],
    ["experiment"],
    ["show", "bench"],
    ["plots", "marl_eval", "render"],
    ["table1"],
    ["analysis.model"],
    ["analysis.points", "analysis.flows", "analysis.escapes"],
    ["analysis.spectra", "analysis.barriers", "analysis.settings"],
    ["analysis.claims"],
    ["analysis.lab", "analysis.pictures"],
    ["analysis.report"],
    ["commands"],
    ["cli"],
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "jaxvff" else parts
    return ".".join(p for p in parts if p != "__init__")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxvff"):
            base = node.module.removeprefix("jaxvff").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                found.add(
                    full if (ROOT / "jaxvff" / f"{full.replace('.', '/')}.py").exists() else base
                )
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("jaxvff.") for a in node.names if a.name.startswith("jaxvff.")
            }
    return {name for name in found if name}


def test_imports_run_one_way() -> None:
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    files = [*ROOT.glob("jaxvff/**/*.py"), *ROOT.glob("envs/*.py")]
    for path in files:
        name = module_name(path)
        if name in ("", "mixers", "analysis", "bridge"):
            continue
        top = "envs" if name.startswith("envs") else name
        assert top in level, f"{name} is in no layer: add it to LAYERS"
        for other in imports(path):
            other = "envs" if other.startswith("envs") else other
            if other == top == "envs":
                continue
            assert level[other] < level[top], f"{name} imports {other}, which is not below it"


def test_environments_import_only_types_from_the_core() -> None:
    for path in ROOT.glob("envs/*.py"):
        core = {name for name in imports(path) if not name.startswith("envs")}
        assert core <= {"types"}, path


def test_a_worker_needs_neither_jaxvff_nor_jax() -> None:
    """What runs in a worker imports NumPy, its neighbours and the game."""
    for path in ROOT.glob("envs/host/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            tops = {name.split(".")[0] for name in names}
            assert not tops & {"jax", "jaxvff", "flax", "optax"}, path


@pytest.mark.slow
def test_a_wheel_holds_one_package_with_its_environments_and_configs(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info" not in n}
    assert tops == {"jaxvff"}
    for needed in (
        "envs/matrix.py",
        "configs/train.yaml",
        "configs/env/matrix/a.yaml",
        "py.typed",
        "envs/host/__main__.py",
    ):
        assert f"jaxvff/{needed}" in names
