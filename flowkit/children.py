"""Start child processes of Python that import the parent's modules, and never those that lie in the working folder.

Python looks for modules first in the working folder when it is started with ``-m`` or ``-c``. Beside foreign data, a file
``json.py`` would then be executed. Child processes are therefore started by a line of code that first of all removes that folder
from ``sys.path``. They keep ``PYTHONPATH`` and the user's site-packages, which ``python -I`` would drop.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

_PACKAGE = Path(__file__).resolve().parent
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# `sys` is built in, so its import reads no file. The package is loaded from its own place, because it may be a checkout in the
# working folder, which is not on the path any more.
_START = """\
import sys
own = [entry for entry in sys.path if entry]
sys.path[:] = {parents!a} + [entry for entry in own if entry not in {parents!a}]
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("flowkit", {init!a}, submodule_search_locations=[{package!a}])
sys.modules["flowkit"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from flowkit.children import end_with
end_with({thread_of})
from {module} import main
main()
"""


def start_child(
    module: str, *, ends_with_thread: bool, quiet: bool = False, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a child process that runs ``main()`` of a module of flowkit, with unbuffered pipes to its stdin and from its stdout.

    The child finds modules where this process finds them, except in the working folder. It stays in that folder, so relative
    paths have the same meaning in both processes. Ctrl-C and SIGTERM, which terminals and job schedulers send to all processes of
    a run, do not reach it: the parent alone reacts to them.

    Parameters
    ----------
    module : str
        The module.
    ends_with_thread : bool
        Let Linux end the child when the thread that calls this has ended, even if a library hangs in the child and keeps all of
        its threads from running.
    quiet : bool
        Discard what the child writes to stderr.
    variables : mapping, optional
        Environment variables to add for the child.
    """
    import subprocess  # here, so that help stays fast

    code = _START.format(
        parents=import_path(),
        init=str(_PACKAGE / "__init__.py"),
        package=str(_PACKAGE),
        module=module,
        thread_of=os.getpid() if ends_with_thread else 0,
    )
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    with _stop_signals_blocked():  # the child inherits this
        return subprocess.Popen(  # noqa: S603 - this Python, and code of this module
            [sys.executable, *flags, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            env=child_environment(variables),
            bufsize=0,
        )


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """In a child, let Linux end this process when the thread that started it has ended; `parent` is its process, 0 means do nothing."""
    if not parent or sys.platform != "linux":
        return
    import ctypes

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def child_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child process: that of this process, with `variables`, and without the working folder.

    An empty entry of ``PYTHONPATH`` means the working folder. It is removed, as is every relative entry that leads there; other
    relative entries become absolute.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1", **(variables or {})}  # Python 3.10 does not know PYTHONSAFEPATH
    entries = [
        os.path.abspath(entry)
        for entry in environment.pop("PYTHONPATH", "").split(os.pathsep)
        if entry and (os.path.isabs(entry) or not _is_working_folder(entry))
    ]
    if entries:
        environment["PYTHONPATH"] = os.pathsep.join(entries)
    return environment


def import_path() -> list[str]:
    """Return the entries of ``sys.path`` without those that lead to the working folder."""
    return [entry for entry in sys.path if os.path.isabs(entry) and not _is_working_folder(entry)]


def _is_working_folder(entry: str) -> bool:
    try:
        return os.path.samefile(entry, ".")
    except OSError:  # there is no such folder, or the working folder was removed
        return False


def leave_working_folder_out() -> None:
    """Let this process, a command, and all that it starts import nothing from the working folder.

    ``python -m`` puts that folder on the path, for which `flowkit.__init__` cares; an empty or a relative entry of ``PYTHONPATH``
    does so too.
    """
    entries = os.environ["PYTHONPATH"].split(os.pathsep) if os.environ.get("PYTHONPATH") else []
    named = {os.path.abspath(entry) for entry in entries if not os.path.isabs(entry)}
    sys.path[:] = [entry for entry in sys.path if entry and not (entry in named and _is_working_folder(entry))]
    environment = child_environment()
    if "PYTHONPATH" not in environment:
        os.environ.pop("PYTHONPATH", None)
    os.environ.update(environment)
