"""The translation of a panic in the library's Rust code into an ordinary error.

`pyo3_runtime.PanicException` is a `BaseException`: it passes every handler of ordinary errors, so one file could end
the daemon. All input from outside is therefore read and validated inside `contained` or `answering`. The library itself
writes the place in its source code to stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BROKE_OFF = "the library that reads such files failed on this because of a defect of its own (its message is in stderr)"
"""The reason in messages, as a clause."""

HINT = "Have it issued again, or in another form, and report it: https://github.com/pyca/cryptography/issues"
"""The next step in messages."""

_HOME = "pyo3_runtime"  # this module cannot be imported, so the class is recognised by the module's name


class PanicError(ValueError):
    """The library panicked on its input; the message never quotes content."""


@contextmanager
def contained() -> Iterator[None]:
    """Turns a panic within this block into a `PanicError`; all other exceptions pass, interrupts included.

    Raises:
        PanicError: the library panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != _HOME:
            raise
        raise PanicError(BROKE_OFF) from None


def answering(instead: Callable[[], T]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for functions that return a substitute if the library panics.

    Args:
        instead: makes the substitute.
    """

    def decorated(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                with contained():
                    return function(*args, **kwargs)
            except PanicError:
                return instead()

        return wrapped

    return decorated
