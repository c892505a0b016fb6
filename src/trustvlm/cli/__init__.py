"""The command line, one file per command; here errors and signals become exit codes."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from typing import Any, TextIO

from trustvlm.exceptions import TrustVLMError, UsageError
from trustvlm.files import output_error
from trustvlm.text import printable, without_credentials

_INTERRUPTED = (
    "interrupted. What has been embedded so far is kept: run the same command again and it "
    "continues from there."
)
_STOPPED = f"stopped by the system. {_INTERRUPTED.partition('. ')[2]}"


def main() -> None:
    """Run the command line; every error and signal ends as one message and an exit code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments or bool(os.environ.get("TRUSTVLM_DEBUG"))
    stdout = _write_utf8()
    with _Signals() as signals:
        try:
            # Late, so that an interrupt while it is imported has its message, too.
            from trustvlm.cli.app import command_line
            from trustvlm.cli.console import show_warnings_plainly

            show_warnings_plainly()
            command_line()([argument for argument in arguments if argument != "--debug"])
            code: Any = 0
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = 2 if isinstance(error, UsageError) else 1
            if signals.received is None and not isinstance(error, KeyboardInterrupt):
                _explain(error, debug=debug)
            else:
                code = 130
        # The framework that parses the command line makes an exit of an interrupt, and libraries
        # make other errors of it.
        if code == 130 or (signals.received is not None and code):
            code = signals.code
            _print_error(_STOPPED if code == 128 + signal.SIGTERM else _INTERRUPTED)
    sys.exit(_flush(stdout, code, debug=debug))


class _Interrupt(KeyboardInterrupt):
    """Of a class of its own: after a plain one inside `exec`, Python ends itself by the signal."""


class _Signals:
    """While it is entered, SIGINT and SIGTERM end what runs, and a second one ends it at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    @property
    def code(self) -> int:
        """The exit code that says which signal it was."""
        return 128 + (self.received or signal.SIGINT)

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # What a shell starts in the background, or under nohup, ignores some.
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self.received is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        # A process that was forked from this one is not the one to say anything.
        if self.received is not None or os.getpid() != self._process:
            os._exit(128 + number)
        self.received = number
        raise _Interrupt


def _explain(error: BaseException, *, debug: bool) -> None:
    if debug:
        import traceback

        said = without_credentials("".join(traceback.format_exception(error)))
        sys.stderr.write(printable(said, keep="\n"))
    if isinstance(error, TrustVLMError):
        _print_error(str(error))
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        name = "the output" if error.filename is None else os.fsdecode(error.filename)
        _print_error(str(output_error(name, error)))
    else:
        _print_error(
            f"something unexpected went wrong ({type(error).__name__}: {error}). "
            "Run again with --debug to see where, and please report it."
        )


def _print_error(message: str) -> None:
    sys.stderr.write(f"error: {printable(without_credentials(message), keep=chr(10))}\n")


def _write_utf8() -> TextIO:
    """Have both streams write UTF-8 whatever the console; return standard output."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return sys.stdout


def _flush(stdout: TextIO, code: Any, *, debug: bool) -> Any:
    """Write what is left of the output; return the exit code, 1 if that failed."""
    try:
        stdout.flush()
    except OSError as error:
        # Python would try again, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        # A reader such as `head` has all that it wants.
        if not code and not isinstance(error, BrokenPipeError):
            _explain(error, debug=debug)
        return code or 1
    return code
