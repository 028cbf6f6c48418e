"""The house rules that a tool can hold: imports run one way, one package in the wheel."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvff.core.options import options_of
from jaxvff.core.registry import Registry, load
from jaxvff.methods.table import METHODS
from jaxvff.settings.config import COMPONENTS, Config

ROOT = Path(__file__).resolve().parent.parent

# Each room may import from the lines above its own and from itself, never from below.
LAYERS = [
    {"core"},
    {"configs", "envs", "networks"},
    {"mixers"},
    {"losses"},
    {"methods", "learning", "playing"},
    {"policies", "settings"},
    {"training"},
    {"runs"},
    {"reports"},
    {"lab"},
    {"api"},
    {"cli"},
]
FILES = [*ROOT.glob("jaxvff/**/*.py"), *ROOT.glob("envs/*.py"), *ROOT.glob("configs/*.py")]


def module_name(path: Path) -> str:
    """`losses.td` of jaxvff/losses/td.py; "" of jaxvff/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "jaxvff" else parts
    return ".".join(p for p in parts if p != "__init__")


MODULES = {module_name(path) for path in FILES}


def imports(path: Path) -> set[str]:
    """The modules of jaxvff that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxvff"):
            base = node.module.removeprefix("jaxvff").removeprefix(".")
            names = {f"{base}.{alias.name}".strip(".") for alias in node.names}
            found |= {name if name in MODULES else base for name in names}
        elif isinstance(node, ast.Import):
            found |= {
                a.name.removeprefix("jaxvff.") for a in node.names if a.name.startswith("jaxvff.")
            }
    return {name for name in found if name}


def test_imports_run_one_way() -> None:
    level = {room: i for i, rooms in enumerate(LAYERS) for room in rooms}
    for path in FILES:
        name = module_name(path)
        if name in ("", "__main__"):  # the public names, and the command
            continue
        room = name.split(".")[0]
        assert room in level, f"{name} is in no layer: add its room to LAYERS"
        for other in imports(path):
            below = other.split(".")[0]
            assert below == room or level[below] < level[room], f"{name} imports {other}"


def test_no_module_imports_itself_through_others() -> None:
    below = {module_name(path): imports(path) for path in FILES if module_name(path)}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above, name))
        if name not in done:
            for other in below.get(name, ()):
                visit(other, (*above, name))
            done.add(name)

    for name in below:
        visit(name, ())


LIGHT = [
    "import jaxvff; jaxvff.train, jaxvff.load, jaxvff.Run, jaxvff.UserError; jaxvff.list_envs()",
    "import jaxvff.settings.config, jaxvff.settings.sweep, jaxvff.settings.presets",
    "import jaxvff.cli.main, jaxvff.cli.train, jaxvff.cli.help_texts",
    "from jaxvff.envs import ENVS; list(ENVS)",
]


@pytest.mark.parametrize("statement", LIGHT)
def test_names_options_and_help_are_there_before_jax(statement: str) -> None:
    script = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy = {"jax", "flax", "optax", "numpy", "matplotlib", "scipy"} & set(done.stdout.split())
    assert not heavy


def test_training_imports_neither_plots_nor_the_lab_before_it_needs_them() -> None:
    script = (
        "import jaxvff.cli.progress, jaxvff.api.shown, jaxvff.runs.execute, sys; "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    late = {"matplotlib", "scipy.stats", "orbax", "distrax", "diffrax", "jaxmarl", "wandb"}
    assert not late & set(done.stdout.split())


def registries() -> dict[str, Registry]:
    """Every registry of the project, by where it stands."""
    found = {}
    for name in sorted(MODULES):
        if name.split(".")[-1] in ("options", "main") or name == "envs":
            module = importlib.import_module(f"jaxvff.{name}")
            tables = {k: v for k, v in vars(module).items() if isinstance(v, Registry)}
            found |= {f"{name}.{k}": v for k, v in tables.items()}
    return found


def test_every_row_of_every_table_leads_somewhere() -> None:
    tables = registries()
    assert {"networks.options.UTILITIES", "envs.ENVS", "cli.main.COMMANDS"} <= tables.keys()
    for where, table in tables.items():
        for name in table:
            assert table[name] is not None, f"{where}[{name!r}]"
    for name, method in METHODS.items():
        for reference in (method.mixer, method.loss, method.head, method.memory):
            assert callable(load(reference)), f"{name}: {reference}"
        for maybe in (method.act_on_search, method.context):
            assert maybe is None or callable(load(maybe))


def test_no_two_components_have_an_option_of_the_same_name() -> None:
    names = [o.name for component in COMPONENTS for o in options_of(component)]
    assert len(names) == len(set(names)) == len(options_of(Config))


def test_environments_import_only_the_core() -> None:
    for path in ROOT.glob("envs/*.py"):
        core = {name for name in imports(path) if not name.startswith("envs")}
        assert all(name.startswith("core.") for name in core), path


def test_a_worker_needs_neither_jaxvff_nor_jax() -> None:
    """What runs in a worker imports NumPy, its neighbours and the game."""
    for path in ROOT.glob("envs/host/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names.append(node.module or "")
            tops = {name.split(".")[0] for name in names}
            assert not tops & {"jax", "jaxvff", "flax", "optax"}, path
