"""Writing to stdout and stderr without failing because of them.

A search that takes hours must not end because its lines have no reader any more, and its exit code
must not depend on that: a reader that has gone (``| head -1``), a full disk, a closed descriptor,
or a character that the terminal's encoding lacks.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
import os
import sys
from typing import Any
from typing import TextIO
from typing import cast


class _Tolerant:
    """A text stream on which writing never fails; what cannot be written is dropped.

    Args:
        stream:
            The stream; :obj:`None`, as Python has it where the descriptor is closed, drops all.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write what can be written."""
        with self._noted():
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                known = text.encode(error.encoding, "backslashreplace").decode(error.encoding)
                self._stream.write(known)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several strings."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._noted():
            self._stream.flush()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            # Python would try again at its exit, and end with a code of its own.
            with contextlib.suppress(OSError, ValueError):
                descriptor = self._stream.fileno()
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
        except ValueError:  # The stream was closed by somebody.
            pass


@dataclass(frozen=True)
class StandardStreams:
    """The streams of a command that runs."""

    out: _Tolerant
    err: _Tolerant

    def lost_output(self) -> OSError | None:
        """Why stdout did not take what was written; :obj:`None` if it did.

        A reader that has closed its end has had enough: that is no loss.
        """
        self.out.flush()
        self.err.flush()
        return None if isinstance(self.out.error, BrokenPipeError) else self.out.error


@contextlib.contextmanager
def standard_streams() -> Iterator[StandardStreams]:
    """Make ``sys.stdout`` and ``sys.stderr`` streams on which writing does not fail."""
    _open_descriptors()
    before = sys.stdout, sys.stderr
    streams = StandardStreams(_Tolerant(sys.stdout), _Tolerant(sys.stderr))
    sys.stdout, sys.stderr = cast("TextIO", streams.out), cast("TextIO", streams.err)
    try:
        yield streams
    finally:
        streams.lost_output()  # What is left is written now, where failing does no harm.
        sys.stdout, sys.stderr = before


def _open_descriptors() -> None:
    """Open the descriptors that were closed (``>&-``), before a file of ours gets their number.

    What a library written in C prints would go into that file otherwise.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free.
