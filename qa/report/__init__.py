"""The page of a question answering run: report.html in its folder, one file that opens anywhere."""

from pathlib import Path

from minitransformer.system import files
from minitransformer.system.errors import RunError, UserError
from qa.report import page
from qa.report.scored import read_questions, read_run


def write(folder: str | Path) -> Path:
    """Write report.html from what the run folder holds, and say where. Raises RunError where something is missing."""
    run = read_run(folder)
    path = run.folder / "report.html"
    try:
        made = page.build(run, read_questions(run))
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunError(f"{run.folder}: its files are not what a run writes ({error}); run it again") from error
    files.write_text(path, made)
    return path
