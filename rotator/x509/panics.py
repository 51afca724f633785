"""A panic of the library's Rust code, made an ordinary error; which input it was is known where it is read.

`pyo3_runtime.PanicException` is a `BaseException`: it passes every handler that is meant for errors, and would end the
daemon over one file. All that comes from outside is read and judged inside of what is here. The library writes the
place in its own source to stderr by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

BROKE_OFF = "the library that reads such files broke off over this, by a defect of its own (stderr has its words)"
"""What is told of it."""

HINT = "Have it issued again, or in another form, and report it: https://github.com/pyca/cryptography/issues"
"""The next step."""

_HOME = "pyo3_runtime"  # a module that cannot be imported: the class is known by it alone


class PanicError(ValueError):
    """The library panicked over what it was given; the message never quotes content."""


@contextmanager
def contained() -> Iterator[None]:
    """Within this block a panic is a `PanicError`; whatever else is raised passes, an interrupt too.

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
    """Has a function give another answer where the library panics.

    Args:
        instead: makes that answer.
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
