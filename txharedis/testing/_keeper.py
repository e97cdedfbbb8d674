"""Keep one server: start it, and never let it outlive the program that wanted it.

Run as ``python -I -S _keeper.py LOGFILE PROGRAM [ARGUMENT ...]``. Standard library only, POSIX.

stdin   the lifeline. Only the program that started the keeper holds its other end, so its end means
        that this program died, however it died, or let go: the server is killed then, with SIGKILL.
stdout  one line for each event: ``started PID``, then ``exited STATUS`` (the exit status, or minus
        the signal that ended it); or only ``failed MESSAGE`` if the program cannot be run.

The server leads a session and process group of its own, so that it and its children can be
signalled together, and nothing typed in a terminal reaches it. What it prints goes to LOGFILE.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

LIFELINE = 0
REPORTS = 1

# What a terminal or a service manager sends to everyone: the lifeline alone decides here.
_NOT_FOR_US = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Python ignores these, and what is ignored stays ignored across exec.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def main(arguments: Sequence[str]) -> None:
    """Start the server named by the arguments, and stay until it has exited."""
    logfile, *command = arguments
    _detach()
    child_changed = _wake_on_child()
    try:
        pid = _start(logfile, command)
    except OSError as error:
        _report(f"failed {error}")
        return
    _report(f"started {pid}")
    status = _wait(pid, child_changed)
    _kill_group(pid)
    _report(f"exited {os.waitstatus_to_exitcode(status)}")


def _detach() -> None:
    """Leave the terminal and the group of the parent, and ignore what is sent to all."""
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # already a leader: run by hand from a shell
        os.setsid()


def _wake_on_child() -> int:
    """Return a descriptor that becomes readable when the child may have exited."""
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    return readable


def _start(logfile: str, command: list[str]) -> int:
    """Return the pid of the server once it runs in a group of its own; or raise OSError."""
    log = os.open(logfile, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    failure, failed = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if pid == 0:
        _become(command, nothing, log, failed)
    os.close(log)
    os.close(nothing)
    os.close(failed)
    number = os.read(failure, 16)
    os.close(failure)
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)), command[0])
    return pid


def _become(command: list[str], stdin: int, output: int, failed: int) -> NoReturn:
    """In the forked child: become the server, or write the errno to `failed` and exit."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (*_NOT_FOR_US, *_IGNORED_BY_PYTHON, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # dup2 makes exactly these three inheritable: all others are closed by exec.
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execv(command[0], command)
    except OSError as error:
        os.write(failed, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


def _wait(pid: int, child_changed: int) -> int:
    """Return the wait status of the server, after killing it if the lifeline ends first."""
    while True:
        ready, _, _ = select.select([LIFELINE, child_changed], [], [])
        if child_changed in ready:
            os.read(child_changed, 512)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
        if LIFELINE in ready and not os.read(LIFELINE, 512):
            _kill_group(pid)
            return os.waitpid(pid, 0)[1]


def _kill_group(pid: int) -> None:
    """Kill the server and the children it forked (to write its data, say), if any are left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: only zombies are left
        os.killpg(pid, signal.SIGKILL)


def _report(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens: the lifeline says so too
        os.write(REPORTS, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
