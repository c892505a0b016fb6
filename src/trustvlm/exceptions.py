"""Every error that trustvlm raises on purpose.

All of them derive from `TrustVLMError`, so that a program can tell a stated condition from a bug.
Each message names what was wrong, where, and what to do about it.
"""

from __future__ import annotations


class TrustVLMError(Exception):
    """Base class of all errors raised on purpose."""


class InputError(TrustVLMError, ValueError):
    """An argument, array or file has the wrong shape, type, range or content."""


class UsageError(InputError):
    """Options of a command are missing, malformed or contradict each other."""


class EvidenceMissingError(InputError):
    """A score was asked for without a piece of evidence that it needs."""


class MissingExtraError(TrustVLMError, ImportError):
    """An optional dependency is not installed; the message names the `pip install` line."""


class ModelUnavailableError(TrustVLMError, OSError):
    """Model weights cannot be had: the hub is out of reach, or the name or file does not exist."""


class ImageError(TrustVLMError, OSError):
    """One image cannot be used; `kind` is one word for tables, the message says the rest.

    The message is for the sender of the image. What a programmer could do besides is a note, which
    tracebacks show.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str], dict[str, object]]:
        return type(self), (self.kind, str(self)), self.__dict__


class OutputError(TrustVLMError, OSError):
    """An output cannot be written; `errno` says why, where the system does."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number

    def __reduce__(self) -> tuple[type[OutputError], tuple[str, int | None]]:
        return type(self), (str(self.args[0]), self.errno)


class ArtefactError(TrustVLMError):
    """A `.trust` directory is damaged, of another format version, or does not fit its models."""


class WorseModelError(TrustVLMError):
    """A model that was updated judges labelled images significantly worse than before."""


class BulkError(TrustVLMError):
    """Bulk prediction cannot go on; what is done so far is kept."""


class PluginError(TrustVLMError):
    """Code from outside the package fails; the message names it."""


class LeakError(InputError):
    """Evaluation images are also among the shots."""


class TrustVLMWarning(UserWarning):
    """Something that the user should know about a result that was still given."""


class UndefinedMetricWarning(TrustVLMWarning):
    """A metric has no value on these samples and is NaN."""


class FewSamplesWarning(TrustVLMWarning):
    """So few samples are wrong, or right, that an interval or a test says little."""
