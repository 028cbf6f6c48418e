"""docs/configuration.md, made from the options themselves.

`python -m jaxvff.settings.reference > docs/configuration.md`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jaxvff.core.options import described, options_of
from jaxvff.envs import ENVS
from jaxvff.methods.table import METHODS
from jaxvff.settings import build
from jaxvff.settings.config import COMPONENTS

HEAD = """\
# Configuration

<!-- Made by `python -m jaxvff.settings.reference`; a test fails where it is stale. -->

`jaxvff train key=value ...` composes the configuration with Hydra. The defaults come first, then
the method's YAML file, then the environment's, then the command line. Keys, types and ranges are
checked before anything compiles. A run folder keeps the result as `config.yaml`.

An option marked *traced* may be swept without recompiling: `sweep.lr=[1e-3,1e-4]` trains every
value times every seed in one vmap. Every other key may be swept as well, but `seeds` and those of
the last section: values that need a program of their own run one after the other. Payoffs of
matrix games are traced, too: `sweep.env=[matrix/a,matrix/b]` or `sweep.env.game_seed=[0,1,2]` is
one program.

What is typed is held against its option before anything is computed: a key is given once, a
boolean is no number, and an option that nothing would read (`n_step=` without `returns=n_step`) is
refused with what it needs. Whole numbers end at 2,147,483,647 and numbers at 3.4e38, as in the
compiled program. A text is taken as it was typed, so that `run_dir=007` stays 007; where it may be
left out, `null`, `None` and `false` leave it out. References such as `${lr}` are not resolved.

Two keys name a group of settings: `env=` a file of [configs/env](../configs/env) (default
matrix/a), `method=` a method (default nmqmix) or a file of [configs/method](../configs/method).
Their own options are `env.<option>=` and `method.<option>=`, listed below. The words *lane*,
*slot*, *segment* and *traced* are in the [glossary](glossary.md).
"""

RESUMING = """\
## Resuming

A resumed run takes `total_steps`, `tensorboard` and `wandb` anew and keeps everything else.
TensorBoard hides points that came after the checkpoint, and wandb is not sent a point that it
has. Offline wandb cannot know, so `wandb sync` may see those points twice. A sink that fails on
the way is named once and left; metrics.jsonl goes on.

A run folder of an environment with episodes also holds `marl_eval.json`, for InstaDeep's
marl-eval. Its `absolute_metrics` are those of the last evaluation. Seeds that stopped on a value
that is not finite are left out; table.json counts them.
"""

METHOD_HEAD = """\
## Methods

The options of a method are those of its mixer and of its loss. `head`, further sets of utilities
and what a method remembers are in its row of [methods/table.py](../jaxvff/methods/table.py).
"""

ENV_HEAD = """\
## Environments

`env.kind` chooses the kind; a file of [configs/env](../configs/env) sets it. A payoff can be
given in place: `env=matrix/file 'env.payoff=[[5,0],[0,1]]'`. Quote brackets where the shell minds
them (zsh does). Games on the host share the options of their worker processes:
[host.md](host.md).
"""


def page() -> str:
    """The whole page, as Markdown."""
    sections = [HEAD, *map(_component, COMPONENTS), RESUMING, METHOD_HEAD, *_methods()]
    sections += [ENV_HEAD, *(_environment(name) for name in ENVS.own)]
    return "\n".join(sections)


def _component(component: type) -> str:
    return f"## {_summary(component)}\n\n{_table(described(component), '')}"


def _methods() -> Iterator[str]:
    """A section for each set of methods that take the same options."""
    sections: dict[str, list[str]] = {}
    for name in METHODS.own:
        rows = [row for kind in build.method_classes(name) for row in described(kind)]
        table = _table(rows, "method.") if rows else "No options.\n"
        sections.setdefault(table, []).append(name)
    for table, names in sections.items():
        yield f"### {', '.join(f'`{name}`' for name in names)}\n\n{table}"


def _environment(name: str) -> str:
    options = ENVS[name].options
    table = _table(described(options), "env.") if options_of(options) else "No options.\n"
    return f"### `{name}`: {_summary(options)}\n\n{table}"


def _summary(kind: type) -> str:
    """The first line of a docstring, without its full stop."""
    return (kind.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _table(rows: Iterable[tuple[str, str, str, str]], prefix: str) -> str:
    lines = ["| key | default | unit, range | what |", "|---|---|---|---|"]
    for name, default, span, text in rows:
        cells = (f"`{prefix}{name}`", default, span, text)
        lines.append("| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
