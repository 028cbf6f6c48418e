"""Run folders that name code of somebody: asked for before it is run.

All else in a run folder is data: checkpoints (arrays), payoffs, configs, metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import platformdirs
import yaml

from jaxvff.core.errors import UserError
from jaxvff.core.options import options_of
from jaxvff.core.registry import is_reference
from jaxvff.envs import ENVS
from jaxvff.settings.config import Config

LIST = "trusted.yaml"  # in the user's config folder: a YAML list of names


def check(folder: Path, configs: Iterable[Config]) -> None:
    """Refuse a run that would run code whose name the user has not allowed.

    Args:
      folder: of the run, for the message.
      configs: of its sweep values.

    Raises:
      UserError: it names such code; the message says which, and how to allow it.
    """
    allowed = _allowed()
    for config in configs:
        for name, value in names_code(config):
            if value not in allowed:
                raise UserError(
                    f"{folder} names code that would be run here, {name}={value!r}; if you know "
                    f"where the folder is from, add trust=true, or {value!r} to the list in "
                    f"{_list_file()}"
                )


def names_code(config: Config) -> Iterator[tuple[str, str]]:
    """The keys that name code, with what they name; what comes first is not imported."""
    chosen = {"method": config.method["name"], "env": config.env.get("kind")}
    chosen |= {o.name: getattr(config, o.name) for o in options_of(Config) if o.about.names}
    yield from ((name, value) for name, value in chosen.items() if is_reference(value))
    for option in options_of(ENVS[config.env["kind"]].options):
        value = config.env.get(option.name)
        if option.about.code and value is not None:
            yield f"env.{option.name}", str(value)


def _list_file() -> Path:
    return Path(platformdirs.user_config_dir("jaxvff")) / LIST


def _allowed() -> list[str]:
    """The names in the user's list.

    Raises:
      UserError: the file is no list of texts.
    """
    path = _list_file()
    try:
        names = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except FileNotFoundError:
        return []
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {error}; write a YAML list of names") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is no list of names; write for instance - my_game.env:make")
    return names
