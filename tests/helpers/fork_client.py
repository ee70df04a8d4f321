"""What ``sys.executable`` is, without its seconds of imports: asks a server of ``fork_server.py`` for a process.

    python -IS fork_client.py SOCKET [-m MODULE | -c CODE | FILE] WORDS...

The process has this one's folder, environment, limits and open streams. This one hands signals on to it (to its
group if ``FORK_CLIENT_GROUP`` is set, as a terminal does) and ends as it ends; if this one is killed, so is it.
"""

from __future__ import annotations

import ctypes
import marshal
import os
import resource
import signal
import socket
import struct
import sys

LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS)
PR_SET_PDEATHSIG = 1


def main() -> None:
    """See the module."""
    early: list[int] = []
    handed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    for number in handed_on:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: early.append(number))
    if "DISTILL_PARENT" in os.environ:  # whose end ends this one, as it would the process itself
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[1])
    request = {
        "argv": sys.argv[2:],
        "cwd": os.getcwd(),
        "environment": {**os.environ, "FORK_CLIENT_PARENT": str(os.getppid())},
        "limits": {limit: resource.getrlimit(limit) for limit in LIMITS},
        "ignored": [int(number) for number in handed_on if signal.getsignal(number) == signal.SIG_IGN],
    }
    data = marshal.dumps(request)
    socket.send_fds(server, [struct.pack("!Q", len(data))], [0, 1, 2])
    server.sendall(data)
    answers = server.makefile()
    pid = int(answers.readline())
    send = os.killpg if "FORK_CLIENT_GROUP" in os.environ else os.kill
    for number in handed_on:
        if number not in request["ignored"]:
            signal.signal(number, lambda number, _: send(pid, number))
    for number in early:
        send(pid, number)
    status = int(answers.readline())
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL) if os.WTERMSIG(status) != signal.SIGKILL else None
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
