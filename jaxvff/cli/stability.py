"""`jaxvff stability`: the stability lab on one game, all questions or the claims alone."""

from __future__ import annotations

from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError, extra


def run(args: list[str]) -> int:
    """Ask the lab, write every answer as soon as it is there, and show all."""
    from jaxvff.lab import settings  # light: a mistake is answered before JAX is there

    only_claims = args[:1] == ["claims"]
    asked = settings.load(args[only_claims:], only_claims)
    asked.table()  # a mistake in the game is one, too
    with importing():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        try:
            from jaxvff.lab import questions, report
        except ImportError as error:
            raise UserError(
                f"stability needs solvers, and {error.name} cannot be imported; {extra('lab')}"
            ) from error
        from jaxvff.runs.folder import new_folder
    folder = new_folder(asked.run_dir, f"stability_{asked.name}")
    report.write_settings(folder, asked)
    console, answers = Console(), {}
    names = questions.CLAIM_QUESTIONS if only_claims else questions.QUESTIONS
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("points", total=len(names))
        for name, answer in questions.answers(asked, only_claims):
            answers[name] = answer
            report.write(folder, name, answer)  # at once: what is answered survives Ctrl-C
            rest = [n for n in names if n not in answers]
            bar.update(task, advance=1, description=rest[0] if rest else "done")
    report.show_all(console, asked, answers)
    console.print(f"results: {folder}", soft_wrap=True, markup=False)
    return 0
