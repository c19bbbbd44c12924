"""One child process that runs tasks: how it is started and ended, and what it does.

The parent writes requests to the child's stdin, and reads notes and answers from its stdout, each as a pickle after its length.
There is no other connection: no file and no semaphore that a killed run could leave behind. When the parent ends, however it
ends, stdin ends, and the child exits.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from flowkit.children import start_child
from flowkit.workers.progress import ChildProgress

_LENGTH = struct.Struct("<Q")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Message:
    """What a child says.

    Parameters
    ----------
    kind : {"ready", "note", "result", "error", "end"}
        ``ready``: it waits for tasks. ``note``: `value` is (done, expected) of its task. ``result``, ``error``: `value` is what the
        task returned or raised. ``end``: the child has ended.
    value : object
        Depends on `kind`.
    trace : str
        The traceback of an error.
    """

    kind: str
    value: Any = None
    trace: str = ""


class InChildError(Exception):
    """The cause of an error that was raised in a child process: its traceback there."""

    def __str__(self) -> str:
        return f'in a child process:\n"""\n{self.args[0]}"""'


class Child:
    """A child process that runs one task after another.

    Parameters
    ----------
    function : callable, importable by name
        Runs a task: ``function(task, progress)``.
    prepare : callable, importable by name, optional
        Runs before the first task. Time limits of tasks do not include it.
    inbox : queue.SimpleQueue
        Receives (child, message) for each message of the child. It may be replaced while the child is idle.
    """

    def __init__(self, function: Callable[..., Any], prepare: Callable[[], None] | None, inbox: queue.SimpleQueue[Any]) -> None:
        self.inbox = inbox
        self.is_ready = False
        self.tasks_done = 0
        # The kernel ends the child together with the thread that started it, which must therefore live long enough.
        in_main_thread = threading.current_thread() is threading.main_thread()
        self._process = start_child(__name__, ends_with_thread=in_main_thread, variables=_ONE_THREAD)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        threading.Thread(target=self._listen, daemon=True).start()
        self._send((function, prepare))

    def begin(self, task: Any) -> None:
        """Let the child run a task."""
        self._send(task)

    def stop(self) -> None:
        """Let the child's task see that it must stop."""
        self._send(None)

    def kill(self) -> int:
        """End the child at once, if it has not ended yet, and return its exit status."""
        self._process.kill()
        status = self._process.wait()
        with suppress(OSError):
            self._stdin.close()
        return status

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def resident_bytes(self) -> int:
        """Return how much memory the child uses now; 0 if the system does not tell."""
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def _send(self, request: Any) -> None:
        with suppress(OSError):  # the child has ended, which its inbox says
            _write(self._stdin, _pickled(request))

    def _listen(self) -> None:
        """Move messages from the pipe to the inbox."""
        with self._stdout as stream:
            while True:
                try:
                    message = _read(stream)
                except Exception:  # the pipe ended, perhaps in the middle of a message
                    message = Message("end")
                self.inbox.put((self, message))
                if message.kind == "end":
                    return


def _pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def _write(stream: Any, data: bytes) -> None:
    for part in (memoryview(_LENGTH.pack(len(data))), memoryview(data)):
        left = part
        while left:
            left = left[stream.write(left) :]


def _read(stream: Any) -> Any:
    (length,) = _LENGTH.unpack(_read_bytes(stream, _LENGTH.size))
    return pickle.loads(_read_bytes(stream, length))  # noqa: S301 - both ends of the pipe are flowkit's processes


def _read_bytes(stream: Any, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        block = stream.read(min(count - len(data), 1 << 24))
        if not block:
            raise EOFError
        data += block
    return bytes(data)


def main() -> None:
    """Run tasks until stdin ends; this is what the child process does."""
    requests, answers = _own_pipes()
    lock = threading.Lock()

    def send(data: bytes) -> None:
        with lock:
            _write(answers, data)

    function, prepare = _read(requests)
    if prepare is not None:
        prepare()
    waiting: queue.SimpleQueue[tuple[Any, ChildProgress]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, waiting, send), daemon=True).start()
    send(_pickled(Message("ready")))
    while True:
        send(_answer(function, *waiting.get()))


def _answer(function: Callable[..., Any], task: Any, progress: ChildProgress) -> bytes:
    """Run a task and return the message about its result or its error."""
    try:
        message = Message("result", function(task, progress))
    except Exception as error:
        message = Message("error", error, traceback.format_exc())
    try:
        data = _pickled(message)
        if message.kind == "error":
            pickle.loads(data)  # noqa: S301 - an error may be one that can be pickled, but not restored
    except Exception:
        what = f"{type(message.value).__name__} cannot be sent to the parent process: {message.value!s:.500}"
        return _pickled(Message("error", RuntimeError(what), message.trace))
    return data


def _receive(requests: BinaryIO, waiting: queue.SimpleQueue[tuple[Any, ChildProgress]], send: Callable[[bytes], None]) -> None:
    """Take tasks and requests to stop from the parent; end this process when the parent has ended."""
    progress: ChildProgress | None = None
    while True:
        try:
            task = _read(requests)
        except BaseException:  # in most cases the end of the pipe
            os._exit(1)
        if task is not None:
            progress = ChildProgress(lambda note: send(_pickled(Message("note", note))))
            waiting.put((task, progress))
        elif progress is not None:
            progress.stopping = True


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return stdin and stdout under other numbers, so that what a library prints goes to stderr and not among the answers."""
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers
