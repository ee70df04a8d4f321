"""What libraries take for granted of a user, and a container's may lack: a name, a home."""

from __future__ import annotations

import logging
import os
import pwd

from cache.runtime.machine_limits import cores


def settle() -> None:
    """Let libraries find a name, a home and the cores, for this process and all that it starts.

    Without a name ``getpass.getuser()`` raises, without a home ``~`` is a folder called so in the working
    folder. ``/`` is what container engines give an unknown user: where nothing can be written there, that is
    an error that names it.
    """
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = "/"
        os.environ.setdefault("LOGNAME", f"uid{os.getuid()}")
    home = os.environ["HOME"] = os.environ.get("HOME") or home
    if hasattr(os, "sched_getaffinity") and cores() < len(os.sched_getaffinity(0)):
        # Of a container's share of the cores they know nothing, and threads that outnumber it wait.
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    if not os.access(home, os.W_OK):
        # It says at every start that it keeps its list of fonts in a folder for temporary files.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
