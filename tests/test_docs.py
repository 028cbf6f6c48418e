"""What the documents show is what happens."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_worked_example_of_a_mixer_is_one_file_and_one_row_and_trains(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "adding-a-mixer.md").read_text()
    file, row = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (name,) = re.findall(r"New file `(.*?)`", text)
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "jaxvff", tree / "jaxvff")
    for part in ("envs", "configs"):
        shutil.copytree(ROOT / part, tree / "jaxvff" / part)
    (tree / name).write_text(file)
    methods = tree / "jaxvff" / "methods.py"
    source = methods.read_text()
    anchor = "METHODS: dict[str, Method] = {\n"
    assert anchor in source
    source = source.replace(anchor, anchor + row)
    first = "from jaxvff.mixers.wqmix"
    source = source.replace(first, f"from jaxvff.mixers.weighted_sum import WeightedSum\n{first}")
    methods.write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "jaxvff", "train", "method=weighted_sum", "method.hypernet_dim=32",
         "seeds=2", "total_steps=300", "run_dir=run"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "weighted_sum on matrix/a" in done.stdout
    assert (tmp_path / "run" / "table.json").exists()


def test_every_config_field_is_documented() -> None:
    import dataclasses

    from jaxvff.settings.config import Config

    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [f.name for f in dataclasses.fields(Config) if f"`{f.name}`" not in text]
    assert not missing


def test_every_link_between_the_documents_leads_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
