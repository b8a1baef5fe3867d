"""The exception tree: every error of this package is a `BnnVerifyError`.

A message says where, what came, what was expected and what to do. Subclasses also derive from the built-in
that a caller would expect, so `except ValueError` works. A timeout is a result with a reason, not an error.
"""


class BnnVerifyError(Exception):
    """Base of all errors that bnnverify raises on purpose."""


class ModelError(BnnVerifyError, ValueError):
    """A network, block or batch norm that is not what it claims to be."""


class QueryError(BnnVerifyError, ValueError):
    """A question that has no answer: a wrong input, region, label, rate or tolerance."""


class FormatError(BnnVerifyError, ValueError):
    """A file that cannot be read as what it should be; the message starts with `path: ` or `path:line: `."""


class UnsupportedError(BnnVerifyError, NotImplementedError):
    """A meaningful request that this version does not serve; the message names the reason."""


class ResourceLimitError(BnnVerifyError, RuntimeError):
    """A limit on time, nodes or memory was reached where no partial result is possible."""


class EngineError(BnnVerifyError, RuntimeError):
    """An engine gave an answer that fails its own check: always a bug, never a property of the question."""


class BnnVerifyWarning(UserWarning):
    """Something that is allowed and probably not meant; the message says what follows and what to take instead."""
