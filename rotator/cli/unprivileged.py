"""The commands of root that run as another user: as the owner of the store, or as the least privileged user.

Each of them reads the configuration and the named files with the caller's rights first, and parses nothing of them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection
from typing import Concatenate, ParamSpec

from rotator.cli.context import Context
from rotator.cli.output import Output
from rotator.config import Config
from rotator.core.errors import RotatorError
from rotator.privsep.privilege_drop import Account, changes_user, nobody, owner_account, run_without_root

Arguments = ParamSpec("Arguments")


def as_store_owner(
    command: Callable[Concatenate[Context, Arguments], int],
) -> Callable[Concatenate[Context, Arguments], int]:
    """Has a command run as the store's owner if root calls it; only the configuration is read before.

    Args:
        command: the function of the command, with its context first.
    """

    @functools.wraps(command)
    def run(context: Context, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        account = store_account(context.config)
        return run_as(account, context, lambda: command(context, *args, **kwargs))

    return run


def run_as(account: Account, context: Context, work: Callable[[], int], keep: Collection[int] = ()) -> int:
    """Works as another user if root calls. Returns the exit status.

    Args:
        account: the user that root becomes.
        context: the call of the command.
        work: the rest of the command; it returns the exit status.
        keep: open descriptors that the rest of the command uses.
    """
    if changes_user(account.uid):
        prepare(context)
    return run_without_root(account, work, show_error(context.output), keep)


def run_as_nobody(context: Context, work: Callable[[], int]) -> int:
    """Works as the user nobody if root calls: the rest of the command needs the bytes that were read, and no file.

    Args:
        context: the call of the command.
        work: the rest of the command; it returns the exit status.
    """
    return run_as(nobody(), context, work)


def store_account(config: Config) -> Account:
    """The user that owns the store: root itself for a store of root's own, and the user nobody while there is no store.

    Args:
        config: the configuration.
    """
    try:
        status = os.stat(config.state_dir)  # noqa: PTH116 - as the other commands ask for it
    except OSError:
        return nobody()  # the command reports the missing store
    return owner_account(status)


def prepare(context: Context) -> None:
    """Records the caller, and imports what the output needs later, when Python's files may be closed to this process.

    Args:
        context: the call of the command.
    """
    assert context.user  # noqa: S101 - a name is never empty; root and the environment of sudo are gone later
    context.output.import_late()


def show_error(output: Output) -> Callable[[RotatorError], int]:
    """A function that shows an error and returns its exit status.

    Args:
        output: where it is shown.
    """

    def show(e: RotatorError) -> int:
        output.error(e)
        return int(e.exit)

    return show
