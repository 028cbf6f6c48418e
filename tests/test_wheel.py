"""The wheel as a new user has it: in empty environments, on three Pythons, newest and lowest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
# The newest that Python 3.12 and later have; all else is as new as in the checkout. A release of
# tomorrow must not break the tests of today.
NEWEST = {"jax": "0.12.0.1", "jaxlib": "0.12.0.1", "flax": "0.12.12", "numpy": "2.5.5",
          "scipy": "1.18.1"}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("uv") is None, reason="uv makes wheel and environments"),
]


def done(*command: object, cwd: Path, **own: str) -> str:
    """What a command prints on its standard output, where it succeeds."""
    ran = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | own, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout


def new_home(folder: Path) -> dict[str, str]:
    """A home that is not there yet, and the cache of compiled programs that a user has."""
    return {"HOME": str(folder / "home"), "JAXVFF_CACHE": str(folder / "cache")}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    done("uv", "build", "--quiet", "--out-dir", folder, ROOT, cwd=folder)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (path,) = folder.glob("*.whl")
    return path


def interpreter(version: str) -> str:
    """A Python of a version: this one, pyenv's, or what uv finds or downloads."""
    pyenv = shutil.which("pyenv")
    if version == OWN:
        return sys.executable
    if pyenv is None:
        return version
    asked = subprocess.run([pyenv, "prefix", version], capture_output=True, text=True, check=False)
    return f"{asked.stdout.strip()}/bin/python" if asked.returncode == 0 else version


def environment(folder: Path, version: str, resolution: str, wheel: Path) -> Path:
    """The interpreter of a new environment in `folder` that has the wheel; skips without Python."""
    command = ["uv", "venv", "--quiet", "--python", interpreter(version), "env"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no Python {version} here, and none to download: {made.stderr[:200].strip()}")
    about = project()
    asked = about["project"]["dependencies"] + about["project"]["optional-dependencies"]["lab"]
    (folder / "asked.txt").write_text("\n".join(asked))
    pins = dict(pin.split("==") for pin in about["tool"]["uv"]["constraint-dependencies"])
    pins |= {} if version == "3.11" else NEWEST
    newest = "\n".join(f"{name}=={pin}" for name, pin in pins.items())
    (folder / "pins.txt").write_text(newest if resolution == "highest" else "")
    python = folder / "env" / "bin" / "python"
    done("uv", "pip", "install", "--quiet", "--python", python, "--resolution", resolution,
         "--constraints", "pins.txt", "--requirements", "asked.txt", wheel,
         cwd=folder)  # fmt: skip
    return python


@pytest.mark.parametrize(
    ("version", "resolution", "what"),
    [
        ("3.11", "lowest-direct", ["further"]),
        ("3.12", "highest", []),
        ("3.13", "lowest-direct", []),
    ],
)
def test_a_new_user_trains_loads_exports_and_acts_with_numpy_alone(
    version: str, resolution: str, what: list[str], wheel: Path, tmp_path: Path
) -> None:
    """Without the checkout, in an empty folder with an empty home."""
    python = environment(tmp_path, version, resolution, wheel)
    warned = ["-W", "error::DeprecationWarning"] if resolution == "highest" else []
    script = shutil.copy(ROOT / "tests" / "newcomer.py", tmp_path)
    said = done(python, *warned, script, *what, cwd=tmp_path, **new_home(tmp_path))
    depended = project()["project"]["dependencies"]
    (bound,) = (d.split(">=")[1] for d in depended if d.startswith("jax>="))
    wanted = bound if resolution == "lowest-direct" else NEWEST["jax"]
    assert f"\njax {wanted}" in said


def test_the_snippets_about_the_api_run_one_after_the_other(wheel: Path, tmp_path: Path) -> None:
    """Train, load, act in a loop, export, act with NumPy alone and with StableHLO, go on, record.

    On Python 3.13 with the newest packages, and otherwise on this one.
    """
    snippets = re.findall(
        r"```python\n(.*?)```\n", (ROOT / "docs" / "api.md").read_text(), re.DOTALL
    )
    assert len(snippets) == 8
    try:
        python = environment(tmp_path, "3.13", "highest", wheel)
    except pytest.skip.Exception:
        python = environment(tmp_path, OWN, "highest", wheel)
    done(python, "-W", "error::DeprecationWarning", "-c", "\n".join(snippets), cwd=tmp_path,
         **new_home(tmp_path))  # fmt: skip
    assert (tmp_path / "curves.png").exists()
    for name in ("further", "offline"):
        assert (tmp_path / "runs" / name / "table.json").exists()


def test_the_wheel_holds_one_package_with_its_environments_and_configs(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info" not in n}
    assert tops == {"jaxvff"}
    for needed in (
        "envs/matrix.py",
        "configs/train.yaml",
        "configs/env/matrix/a.yaml",
        "py.typed",
        "reports/page.html.jinja",
        "envs/host/__main__.py",
        "policies/act.py",
    ):
        assert f"jaxvff/{needed}" in names


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_every_extra_can_be_installed(version: str, wheel: Path, tmp_path: Path) -> None:
    """An index has what each of them asks for; gfootball is for Python 3.11 alone."""
    extras = project()["project"]["optional-dependencies"]
    (tmp_path / "asked.txt").write_text(f"jaxvff[{','.join(extras)}] @ {wheel.as_uri()}\n")
    found = done("uv", "pip", "compile", "--quiet", "--no-annotate", "--python-version", version,
                 "asked.txt", cwd=tmp_path)  # fmt: skip
    for name in ("jax-cuda12-plugin", "libtpu", "diffrax", "wandb", "jinja2", "submitit", "ray"):
        assert f"\n{name}==" in found, name
    assert ("\ngfootball==" in found) == (version == "3.11")
