"""What can go wrong through no fault of the code, and how a command says so.

Libraries raise these; only a command line turns one into a message: one line on stderr, exit status 2.
"""

import functools
import os
import sys
import unicodedata
from collections.abc import Callable

JOINERS = "\u200c\u200d"  # ZWNJ and ZWJ: of category Cf, and letters of Persian all the same
LONGEST = 2000  # characters of a message: a name in a damaged or hostile file can have megabytes
BROKEN_PIPE = 141  # 128 + SIGPIPE
INTERRUPTED = 130  # the exit status after Ctrl-C by the shells' custom, 128 + SIGINT


class UserError(Exception):
    """Something the user can mend. The text names the file, the place in it and the remedy, in one line."""


class WeightsError(UserError):
    """A checkpoint folder that cannot be loaded exactly: a file, a key, a shape, a configuration."""


class DataError(UserError, ValueError):
    """A data set that cannot be used: not the expected format, or contents that contradict themselves."""


class RecipeError(UserError):
    """A recipe with an unknown field, a value of the wrong type, or values that exclude each other."""


class RunError(UserError):
    """A run that cannot start, go on or be resumed."""


class Stopped(Exception):
    """A run that was asked to stop, and has saved what it needs to go on. Not an error, but not the end either."""

    def __init__(self, message: str, status: int) -> None:
        """status: of the process, 128 + the number of the signal, as shells have it."""
        super().__init__(message)
        self.status = status


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command's `main` so that a UserError or a file system error ends it in one line and status 2."""

    @functools.wraps(main)
    def wrapped() -> None:
        status = 2
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal in latin-1 cannot show Persian
        try:
            main()
        except UserError as error:
            message = str(error)
        except BrokenPipeError:  # `| head` has what it wants
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain at its end
            raise SystemExit(BROKEN_PIPE) from None
        except OSError as error:
            message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            message = "memory ran out: compute less at once (--micro-batch, --eval-tokens, --batch-tokens), or "
            message += "keep less in memory (--cache-gb)"
        except Stopped as stopped:
            print(printable(str(stopped)), file=sys.stderr)
            raise SystemExit(stopped.status) from None
        except KeyboardInterrupt:
            message, status = "interrupted", INTERRUPTED
        else:
            return
        if len(message) > LONGEST:
            message = message[: LONGEST // 2] + " ... " + message[-LONGEST // 2 :]
        print("error: " + printable(message), file=sys.stderr)
        raise SystemExit(status)

    return wrapped


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch on a CPU, or a GPU had no memory left."""
    words = ("not enough memory", "can't allocate memory", "out of memory", "bad alloc")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def is_unicode(text: str) -> bool:
    """Whether it can be written as UTF-8. Python makes half characters of bytes that are none, in a file's name say."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def printable(text: str) -> str:
    """The text on one line, without the characters that command a terminal or turn the direction of writing.

    These are the Unicode categories Cc (escape sequences begin with one), Cf and Cs (half characters).
    """
    line = " ".join(text.split())
    return "".join(c for c in line if c in JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
