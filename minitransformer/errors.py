"""What can go wrong through no fault of the code, and how a command says so.

Libraries raise these; only a command line turns one into a message: one line on stderr, exit status 2.
"""

import functools
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend. The text names the file, the place in it and the remedy, in one line."""


class WeightsError(UserError):
    """A checkpoint folder that cannot be loaded exactly: a file, a key, a shape, a configuration."""


class DataError(UserError):
    """A data set that cannot be used: not the expected format, or contents that contradict themselves."""


class RecipeError(UserError):
    """A recipe with an unknown field, a value of the wrong type, or values that exclude each other."""


class RunError(UserError):
    """A run that cannot start, go on or be resumed."""


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command's `main` so that a UserError or a file system error ends it in one line and status 2."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except UserError as error:
            message = str(error)
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        else:
            return
        print("error: " + " ".join(message.split()), file=sys.stderr)
        raise SystemExit(2)

    return wrapped
