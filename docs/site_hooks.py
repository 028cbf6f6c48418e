"""What the site has besides the pages of this folder: reference pages, and files of the checkout.

Pages link to files of the checkout (`../jaxvff/core/types.py`), as they are read there. On the
site such a link leads to a page that shows the file, or to the file itself where it is a picture or
data.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)\s]*)?\)")
SHOWN = {".py": "python", ".yaml": "yaml"}  # as a page; other files as they are
# Rooms of the package in the order in which they may import one another (docs/design.md).
ROOMS = (
    "core", "networks", "mixers", "losses", "methods", "learning", "playing", "policies",
    "settings", "training", "runs", "reports", "api", "lab", "cli",
)  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and the files that pages link to."""
    pages = {
        "reference/command-line.md": _command_line(),
        "reference/presets.md": _presets(),
        "reference/code.md": _rooms(),
    }
    pages |= {f"reference/code/{name}.md": _room(name, files) for name, files in _code().items()}
    for path in sorted(_linked()):
        if path.suffix in SHOWN:
            pages[_on_site(path)] = _source(path)
        else:
            files.append(File.generated(config, _on_site(path), abs_src_path=str(path)))
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to files of the checkout to where they are on the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def replaced(match: re.Match[str]) -> str:
        path = _outside(DOCS / folder, match[2])
        if path is None:
            return match[0]
        if not path.exists():
            raise PluginError(f"{page.file.src_uri} links to {match[2]}, which does not exist")
        target = posixpath.relpath(_on_site(path), folder or ".")
        return f"{match[1]}{target}{'' if path.suffix in SHOWN else match[3] or ''})"

    if page.file.generated_by:
        return markdown
    return _lists_apart(LINK.sub(replaced, markdown))


def _lists_apart(markdown: str) -> str:
    """An empty line before every list: other readers of Markdown need none, this site's does."""
    lines, out, fenced, block = markdown.splitlines(), [], False, ""
    item = re.compile(r"\s*([-*]|\d+\.) ")
    for line in lines:
        before = out[-1] if out else ""
        block = block if before.strip() else line  # its first line
        inside = item.match(before) or before.startswith((" ", "#")) or not before.strip()
        # A further paragraph or table of an item ends where the next item begins.
        further = block.startswith(" ") and not item.match(block)
        inside = inside and not (further and before.strip() and not line.startswith(" "))
        if item.match(line) and not fenced and not inside:
            out.append("")
        if line.lstrip().startswith("```"):
            fenced = not fenced
        out.append(line)
    return "\n".join(out) + "\n"


def _outside(folder: Path, target: str) -> Path | None:
    """The file or folder of the checkout that a link leads to; None: within the documents."""
    if re.match(r"[a-z]+:", target) or target.startswith("/"):
        return None
    path = Path(os.path.normpath(folder / target))
    return None if path.is_relative_to(DOCS) else path


def _on_site(path: Path) -> str:
    """Where a file of the checkout is on the site; folders are in the reference."""
    inside = path.relative_to(ROOT)
    if path.is_dir():
        if inside.parts[0] == "configs":
            return "reference/presets.md"
        parts = inside.parts[1:] if inside.parts[0] == "jaxvff" else inside.parts
        name = ".".join(parts[:1] if parts[0] != "envs" else parts)
        return f"reference/code/{name}.md"
    return f"source/{inside.as_posix()}" + (".md" if path.suffix in SHOWN else "")


def _linked() -> set[Path]:
    """The files of the checkout that pages link to."""
    found = set()
    for page in DOCS.rglob("*.md"):
        for match in LINK.finditer(page.read_text(encoding="utf-8")):
            path = _outside(page.parent, match[2])
            if path is not None and path.is_file():
                found.add(path)
    return found


def _source(path: Path) -> str:
    name, language = path.relative_to(ROOT).as_posix(), SHOWN[path.suffix]
    text = path.read_text(encoding="utf-8")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n````{language}\n{text}````\n"


def _command_line() -> str:
    """The help of every command."""
    from jaxvff.cli import help_texts

    parts = ["# Command line\n\nWhat `jaxvff <command> --help` says.\n"]
    for name in ("", *help_texts.TEXTS):
        title = f"jaxvff {name}".strip()
        parts.append(f"## {title}\n\n```text\n{help_texts.of(name or 'help')}```\n")
    return "\n".join(parts)


def _presets() -> str:
    """The files of configs: settings that were chosen for a method, an environment or a study."""
    parts = [
        "# Presets\n\nThe settings that differ from the [defaults](../configuration.md), for an "
        "environment (`env=`), a method (`method=`) or a study (`jaxvff reproduce`). Each number "
        "says where it comes from.\n"
    ]
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        name = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
        parts.append(f"## {name}\n\n```yaml\n{path.read_text(encoding='utf-8')}```\n")
    return "\n".join(parts)


def _code() -> dict[str, list[Path]]:
    """The modules of each room."""
    rooms = {room: ROOT / "jaxvff" / room for room in ROOMS}
    found = {
        room: sorted(folder.rglob("*.py")) for room, folder in rooms.items() if folder.exists()
    }
    found["envs"] = sorted((ROOT / "envs").glob("*.py"))
    found["envs.host"] = sorted((ROOT / "envs" / "host").glob("*.py"))
    return found


def _rooms() -> str:
    """A list of the rooms, each with what its package says of itself."""
    rows = [f"- [{name}](code/{name}.md)" for name in _code()]
    return (
        "# Code\n\nEvery public class and function, from its docstring. The package is made of "
        "rooms; [design](../design.md#the-rooms) says what belongs where.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def _room(name: str, paths: list[Path]) -> str:
    """The reference of a room, a section for each module (mkdocstrings makes the headings)."""
    return f"# {name}\n\n" + "\n".join(f"::: {title}\n" for title in _modules(paths))


def _modules(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        if path.stem not in ("__init__", "__main__"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts)
