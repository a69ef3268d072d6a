"""Processes for tests that kill them: forks of one that has imported everything, which takes seconds only once."""

import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def loaded(*packages: str) -> list[str]:
    """The modules of some packages that this process has loaded. transformers loads most of itself when it is used."""
    return [name for name in sys.modules if name.partition(".")[0] in packages]


class Forks:
    """Calls functions of modules of `support`, each in a new fork that ends with the call. More modules may be named,
    so that no fork has to import them again."""

    def __init__(self, *modules: str) -> None:
        self._command = [sys.executable, __file__, *modules]

    def __enter__(self) -> "Forks":
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def call(self, module: str, function: str, *arguments: Any) -> int:
        """Wait for a call, whose arguments must be JSON. Return its exit code, or minus the signal that ended it."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([module, function, arguments]).encode() + b"\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


def main() -> None:
    sys.path[0] = str(Path(__file__).parents[1])  # in place of this folder, whose html.py is not Python's
    import torch

    torch.set_num_threads(1)
    modules = {name: importlib.import_module(name) for name in sys.argv[1:]}
    gc.freeze()  # no fork looks through what was imported, or copies the memory of it
    answers = os.dup(1)
    os.dup2(2, 1)  # printed text must not be read as an answer
    for line in sys.stdin:
        module, function, arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            getattr(modules[module], function)(*arguments)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
