"""What a disk may hold after a kill or a power cut: a recorder of system calls and a model of what is durable.

`Recorder` stands in for the module `os` in the code under test, carries every call out and writes down those that
change something. `Disk` replays such a log: in it, data lasts only after fsync of its file, and a directory's entry
only after fsync of that directory; a rename within a directory is one entry change. What a real file system promises
beyond that is not relied on. What must be true of a disk is said by the tests.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from rotator.privsep import apply
from rotator.storage import generations, history, lines, locks
from rotator.system import files

_READING = {"read", "pread", "listdir", "stat", "fstat", "readlink"}
_CHANGING = {"write", "pwrite", "ftruncate", "fchmod", "chmod", "fchown", "utime", "fsync"}
_NAMING = {"open", "rename", "symlink", "unlink", "mkdir", "rmdir"}
CALLS = frozenset(_READING | _CHANGING | _NAMING)
"""The calls that a stand-in sees; `close` is left alone, so that no test leaks a descriptor."""

UNDER_TEST = (apply, files, history, lines, locks, generations)
"""The modules that see a stand-in instead of the system."""


class StandIn:
    """In place of the module `os`: everything is carried out, but `before` and `after` see each of `CALLS`.

    A flush is not carried out, as no process could tell: the tests that need thousands of them stay fast.
    """

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Sees a call first; what it raises is raised instead of the call."""

    def after(self, name: str, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        """Sees a call that has succeeded."""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **named: Any) -> Any:
            self.before(name, args, named)
            result = None if name == "fsync" else real(*args, **named)
            self.after(name, args, named, result)
            return result

        return call

    def rmtree(self, path: str | os.PathLike[str], ignore_errors: bool = False) -> None:
        """In place of `shutil.rmtree`, call by call."""
        try:
            for name in self.listdir(path):
                inner = os.path.join(path, name)
                if os.path.isdir(inner) and not os.path.islink(inner):
                    self.rmtree(inner)
                else:
                    self.unlink(inner)
            self.rmdir(path)
        except OSError:
            if not ignore_errors:
                raise


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[None]:
    """Puts it in place of `os` and `shutil` in all that writes the store, and in apply, for the block."""
    with pytest.MonkeyPatch.context() as patch:
        for module in UNDER_TEST:
            patch.setattr(module, "os", stand_in)
        patch.setattr(generations, "shutil", stand_in)
        yield


@dataclass(frozen=True)
class Step:
    """One call that changed something, or one flush.

    Args:
        kind: the call, or `create` for an open that made a file.
        path: of what it changed; for a descriptor, the path that it was opened at.
        to: where a rename led, or what a link names.
        data: what was written.
        at: where in the file, for pwrite; the length, for ftruncate.
        by: names of the functions under test that were running, outermost first.
    """

    kind: str
    path: str
    to: str = ""
    data: bytes = field(default=b"", repr=False)
    at: int = 0
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Promise:
    """Between calls: from here on `register` may hold `value` too; or, when `kept`, nothing else any more."""

    register: tuple[str, ...]
    value: str | None
    kept: bool


Entry = Step | Promise


class Recorder(StandIn):
    """Carries out and writes down, with full paths."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self._paths: dict[int, str] = {}
        self._new = False

    @contextmanager
    def promising(self, *register: str, value: str | None) -> Iterator[None]:
        """What the block does is to bring this value to this register, durably when the block has ended."""
        self.log.append(Promise(register, value, kept=False))
        yield
        self.log.append(Promise(register, value, kept=True))

    def before(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if name == "open":
            self._new = not os.path.lexists(self._path(args[0], named.get("dir_fd")))

    def after(self, name: str, args: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        path = "" if name in ("symlink", "rename") else self._path(args[0], named.get("dir_fd"))
        match name:
            case "open":
                self._paths[result] = path
                if self._new and args[1] & os.O_CREAT:
                    self._add(Step("create", path))
            case "write":
                self._add(Step("write", path, data=bytes(args[1][:result])))
            case "pwrite":
                self._add(Step("pwrite", path, data=bytes(args[1][:result]), at=args[2]))
            case "ftruncate":
                self._add(Step("ftruncate", path, at=args[1]))
            case "rename":
                old = self._path(args[0], named.get("src_dir_fd"))
                self._add(Step("rename", old, self._path(args[1], named.get("dst_dir_fd"))))
            case "symlink":
                self._add(Step("symlink", self._path(args[1], named.get("dir_fd")), os.fspath(args[0])))
            case "fsync" | "fchmod" | "chmod" | "fchown" | "utime" | "unlink" | "mkdir" | "rmdir":
                self._add(Step(name, path))

    def _path(self, what: Any, parent: int | None) -> str:
        if isinstance(what, int):
            return self._paths[what]
        return os.path.normpath(os.path.join(self._paths[parent] if parent is not None else "", os.fspath(what)))

    def _add(self, step: Step) -> None:
        self.log.append(replace(step, by=_running()))


def _running() -> tuple[str, ...]:
    """The functions of the modules under test on the stack, outermost first."""
    names = []
    frame = sys._getframe(2)
    ours = {module.__file__ for module in UNDER_TEST}
    while frame.f_back is not None:
        if frame.f_code.co_filename in ours:
            names.append(frame.f_code.co_name)
        frame = frame.f_back
    return tuple(reversed(names))


# -- the model --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class File:
    data: bytes = b""
    flushed: bytes = b""


@dataclass(eq=False)
class Link:
    target: str


Change = tuple[tuple[str, ...], Mapping[str, "Node"]]
"""Names that go and names that come, at once."""


@dataclass(eq=False)
class Dir:
    now: dict[str, Node] = field(default_factory=dict)
    flushed: dict[str, Node] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(self, *gone: str, **come: Node) -> None:
        self.pending.append((gone, come))
        _carry_out(self.now, self.pending[-1])


Node = File | Link | Dir
View = dict[str, bytes | str | None]
"""A tree at one moment: bytes of a file, target of a link, None for a directory, by path."""


def _carry_out(entries: dict[str, Node], change: Change) -> None:
    for name in change[0]:
        entries.pop(name, None)
    entries.update(change[1])


class Disk:
    """A tree below one directory, with what of it is durable.

    Args:
        root: that directory; what lies there now is durable.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._top = _scanned(root)

    def replay(self, step: Step) -> None:
        """Does in the model what the call did."""
        parent, name = self._find(os.path.dirname(step.path)), os.path.basename(step.path)
        match step.kind:
            case "fsync":
                self._flush(self._find(step.path))
                return
            case "write" | "pwrite" | "ftruncate":
                file = self._find(step.path)
                assert isinstance(file, File)
                if step.kind == "ftruncate":
                    file.data = file.data[: step.at]
                elif step.kind == "pwrite":
                    file.data = file.data[: step.at] + step.data + file.data[step.at + len(step.data) :]
                else:
                    file.data += step.data
                return
        assert isinstance(parent, Dir)
        match step.kind:
            case "create":
                parent.change(**{name: File()})
            case "mkdir":
                parent.change(**{name: Dir()})
            case "symlink":
                parent.change(**{name: Link(step.to)})
            case "unlink" | "rmdir":
                parent.change(name)
            case "rename":
                assert os.path.dirname(step.to) == os.path.dirname(step.path), "no rename crosses a directory"
                parent.change(name, **{os.path.basename(step.to): parent.now[name]})
            case "fchmod" | "chmod" | "fchown" | "utime":
                pass
            case _:
                raise AssertionError(step)

    def killed(self) -> View:
        """What others see when the process has ended here."""
        return self._view(lambda d: d.now, lambda f: f.data)

    def flushed_only(self) -> View:
        """After a power cut that nothing survives which was not flushed."""
        return self._view(lambda d: d.flushed, lambda f: f.flushed)

    def entries_only(self) -> View:
        """After a power cut that every entry survives, and no data that was not flushed."""
        return self._view(lambda d: d.now, lambda f: f.flushed)

    def anything(self, chance: random.Random) -> View:
        """After a power cut that any part of what was not flushed survives."""

        def entries(directory: Dir) -> dict[str, Node]:
            survived = dict(directory.flushed)
            for change in directory.pending:
                if chance.random() < 0.5:
                    _carry_out(survived, change)
            return survived

        def data(file: File) -> bytes:
            begin = len(file.flushed) if file.data.startswith(file.flushed) else 0
            return chance.choice((file.flushed, file.data, file.data[: (begin + len(file.data)) // 2]))

        return self._view(entries, lambda f: f.data if f.data == f.flushed else data(f))

    def entry(self, path: str) -> Node:
        """What has this name now."""
        return self._find(path)

    def _flush(self, node: Node) -> None:
        if isinstance(node, File):
            node.flushed = node.data
        elif isinstance(node, Dir):
            node.flushed, node.pending = dict(node.now), []

    def _find(self, path: str) -> Node:
        node: Node = self._top
        for part in filter(None, path.removeprefix(self.root).split("/")):
            assert isinstance(node, Dir), path
            node = node.now[part]
        return node

    def _view(self, entries: Callable[[Dir], Mapping[str, Node]], data: Callable[[File], bytes]) -> View:
        found: View = {}

        def walk(directory: Dir, path: str) -> None:
            for name, node in entries(directory).items():
                where = f"{path}/{name}"
                if isinstance(node, Dir):
                    found[where] = None
                    walk(node, where)
                else:
                    found[where] = data(node) if isinstance(node, File) else node.target

        walk(self._top, self.root)
        return found


def _scanned(path: Path | str) -> Dir:
    found = Dir()
    for entry in os.scandir(path):
        node: Node
        if entry.is_symlink():
            node = Link(os.readlink(entry.path))
        elif entry.is_dir():
            node = _scanned(entry.path)
        else:
            data = Path(entry.path).read_bytes()
            node = File(data, data)
        found.now[entry.name] = found.flushed[entry.name] = node
    return found


def view_of(root: Path) -> View:
    """The tree that really lies there."""
    return Disk(root).killed()


def put(view: View, root: Path) -> None:
    """Makes the tree below `root` that view, for real; what is the same already stays."""
    there = view_of(root)
    for path in sorted(there, key=len, reverse=True):
        if path not in view or there[path] != view[path]:
            if there[path] is None:
                os.rmdir(path)
            else:
                os.unlink(path)
    for path, what in view.items():
        if path in there and there[path] == what:
            continue
        if what is None:
            os.mkdir(path, 0o755)
        elif isinstance(what, str):
            os.symlink(what, path)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, what)
            os.close(fd)


# -- a protocol made wrong on purpose ---------------------------------------------------------------------------------


def without(log: Iterable[Entry], wrong: Callable[[Step], bool]) -> list[Entry]:
    """The log of the same code with these calls left out."""
    return [entry for entry in log if isinstance(entry, Promise) or not wrong(entry)]


def copied_in_place(log: Iterable[Entry], root: Disk, wrong: Callable[[Step], bool]) -> list[Entry]:
    """The log of the same code with these renames as copies onto their target, flushed as diligently as can be.

    Args:
        log: what was recorded.
        root: the disk as it was at the log's begin; it is used up.
        wrong: which renames.
    """
    out: list[Entry] = []
    for entry in log:
        steps = [entry]
        if isinstance(entry, Step) and entry.kind == "rename" and wrong(entry):
            node = root.entry(entry.path)
            target = root.killed().get(entry.to, "absent")
            steps = list(_copy(node, entry.path, entry.to, exists=target != "absent"))
        out += steps
        for step in steps:
            if isinstance(step, Step):
                root.replay(step)
    return out


def _copy(node: Node, old: str, new: str, *, exists: bool) -> Iterator[Entry]:
    if isinstance(node, Dir):
        yield Step("mkdir", new)
        for name, inner in list(node.now.items()):
            yield from _copy(inner, f"{old}/{name}", f"{new}/{name}", exists=False)
        yield Step("fsync", new)
        yield Step("rmdir", old)
        return
    if isinstance(node, Link):
        if exists:
            yield Step("unlink", new)
        yield Step("symlink", new, node.target)
    else:
        yield Step("ftruncate" if exists else "create", new)
        half = len(node.data) // 2
        yield Step("write", new, data=node.data[:half])
        yield Step("write", new, data=node.data[half:])
        yield Step("fsync", new)
    yield Step("unlink", old)
