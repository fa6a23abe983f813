"""Runs `authz`, or a program of the tests, in processes that are forked from one that has imported `authz`.

Importing takes an `authz` most of its start, and tests start hundreds. What runs is the entry point of the
script, with the arguments, the environment and the standard error that it is given; that the script itself
starts is held by the tests that run it. So is the process from which `authz serve --workers` forks its
children.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import util
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

TRANSPORT = os.environ.get("TRANSPORT", "")
"""What serves, unless a test says otherwise: `grpc` or `envoy`. Empty: the default of `authz serve` for
processes, and grpc.aio for servers inside the process of the tests. See `make test-envoy`."""
AUTHZ = Path(sys.executable).parent / "authz"
"""The script that `pip` installed."""
_ROOT = Path(__file__).parent.parent
_MAX_REQUEST_BYTES = 1 << 17
_CODE_BYTES = 4
_TIMEOUT_S = 120


class Process:
    """A running program: what tests use of a `subprocess.Popen`."""

    def __init__(
        self,
        *arguments: str,
        environ: Mapping[str, str],
        stderr: int,
        stdout: int | None = None,
        folder: Path | None = None,
        module: str = "authz.cli.__main__",
    ) -> None:
        """Run the `main` of a module. `stderr` is a file descriptor, or `subprocess.PIPE`; what goes to the
        standard output is lost unless `stdout` is a file descriptor."""
        if "serve" in arguments and TRANSPORT:
            environ = {"AUTHZ_TRANSPORT": TRANSPORT, **environ}
        self.returncode: int | None = None
        self.stderr: IO[str] | None = None
        read_fd = -1
        if stderr == subprocess.PIPE:
            read_fd, stderr = os.pipe()
            self.stderr = os.fdopen(read_fd)
        self._status, status = os.pipe()
        request = {
            "module": module,
            "arguments": arguments,
            "environ": dict(environ),
            "folder": str(folder or Path.cwd()),
        }
        fds = [status, stderr] if stdout is None else [status, stderr, stdout]
        try:
            socket.send_fds(_server()[0], [json.dumps(request).encode()], fds)
        finally:
            os.close(status)
            if read_fd >= 0:
                os.close(stderr)
        self.pid = self._read()

    def poll(self) -> int | None:
        """The exit code, if it has ended; the negative number of the signal that ended it."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self._end()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the program", timeout or 0)
            self._end()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended since
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(self._read())
        os.close(self._status)

    def _read(self) -> int:
        received = os.read(self._status, _CODE_BYTES)
        assert len(received) == _CODE_BYTES, "the fork server ended"
        return int.from_bytes(received, sys.byteorder)


def without_settings() -> dict[str, str]:
    """The environment of this process, without the variables of a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")}


def run(
    *arguments: str | Path, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `authz` to its end, by default without the variables of a server."""
    if environ is None:
        environ = without_settings()
    words = [*map(str, arguments)]
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        process = Process(
            *words, environ=environ, stdout=output.fileno(), stderr=errors.fileno(), folder=folder
        )
        try:
            code = process.wait(_TIMEOUT_S)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(words, code, output.read(), errors.read())


@cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """The fork server of this process, and where it takes requests. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.forkserver", str(theirs.fileno())],
            cwd=_ROOT,
            env=without_settings(),
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return ours, server


def _serve(control: socket.socket) -> Callable[[], None] | None:
    """Fork a process for each request. Returns in each what it is to run; in the server, at its end, None."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    pid, status = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    _tell(status, os.waitpid(pid, 0)[1])
                    os.close(status)
                    continue
                message, fds, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 3)
                if not message:
                    return None
                status, *outputs = fds
                pid = os.fork()
                if pid == 0:
                    for fd, number in zip(outputs, (2, 1), strict=False):
                        os.dup2(fd, number)
                    for fd in (*fds, *running, *(status for _, status in running.values())):
                        os.close(fd)
                    return lambda: _run(**json.loads(message))
                for fd in outputs:
                    os.close(fd)
                _tell(status, pid)
                end = os.pidfd_open(pid)
                running[end] = pid, status
                selector.register(end, selectors.EVENT_READ)


def _tell(status: int, number: int) -> None:
    os.write(status, array.array("i", [number]).tobytes())


def _run(module: str, arguments: list[str], environ: dict[str, str], folder: str) -> None:
    """Be the program."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # multiprocessing imports the main module again in every child.
    script = types.ModuleType("__main__")
    script.__file__ = str(AUTHZ)
    sys.modules["__main__"] = script
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [str(AUTHZ), *arguments]
    if "serve" in arguments and ("--workers" in arguments or environ.get("AUTHZ_WORKERS", "1") != "1"):
        _prefork()
    try:
        importlib.import_module(module).main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise
        _exit(ended.code or 0)
    _exit(0)


def _prefork() -> None:
    """Fork now, before any thread is there, what multiprocessing would execute an interpreter for.

    Not where workers count together: prometheus_client finds out at its import how it counts.
    """
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        control.close()
        message, fds, _, _ = socket.recv_fds(theirs, _MAX_REQUEST_BYTES, 2)
        theirs.close()
        with suppress(SystemExit):
            if message:
                _be_forkserver(**json.loads(message), fds=fds)
        os._exit(0)
    theirs.close()
    execute: Any = util.spawnv_passfds

    def start(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        first, _, rest = str(args[-1]).partition(f"main({passfds[0]}, {passfds[-1]}, ")
        if not rest or "PROMETHEUS_MULTIPROC_DIR" in os.environ or control.fileno() < 0:
            return int(execute(path, args, passfds))
        ignored = [n for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN]
        request = {"code": [first, rest], "environ": dict(os.environ), "ignored": ignored}
        with control:
            socket.send_fds(control, [json.dumps(request).encode()], passfds)
        return pid

    util.spawnv_passfds = start


def _be_forkserver(code: list[str], environ: dict[str, str], ignored: list[int], fds: list[int]) -> None:
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environ)
    exec(f"main({', '.join(map(str, fds))}, ".join(code), {})  # noqa: S102  what multiprocessing wrote


def _exit(code: int) -> NoReturn:
    """End as Python does, but let the kernel free what was imported, which takes half of a command."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    # Ctrl-C reaches it too, and whoever asks it is not done then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As the entry point does before it imports gRPC.
    os.environ["GRPC_VERBOSITY"] = "NONE"
    import psycopg  # noqa: F401  for those that are given a PostgreSQL

    import authz.runtime.serve
    import authz.runtime.supervise  # noqa: F401
    from authz.cli.main import whole_command

    # The first command line that is parsed imports more, for the values of options.
    whole_command().make_context("authz", ["check"])
    # Else the first collection in each process copies all that is imported.
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as taken:
        forked = _serve(taken)
    if forked is not None:
        forked()
