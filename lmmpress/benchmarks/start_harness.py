"""Starts a harness by its own command line, in the harness' interpreter, which need not have lmmpress.

    python start_harness.py '{"module": "lm_eval", ...}' ARGUMENTS OF THE HARNESS

Before that it makes known what the harness cannot know: the types of checkpoints that only lmmpress writes (`types`:
lmmpress's own file of their code, and the names in it), and for lmms-eval the model class that asks them (`model`: its
file). No code of a checkpoint is run. The process ends with the one that started it, which holds the other end of its
standard input. This file imports nothing of lmmpress.
"""

import importlib
import importlib.util
import json
import os
import runpy
import signal
import sys
import threading
from types import ModuleType
from typing import Any

MODEL = "lmmpress"
"""The name of the model class, as lmms-eval knows it."""


def main() -> None:
    end_with_parent()
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    if types := wanted.get("types"):
        make_known(loaded("modeling_lmmpress", types["file"]), types["classes"])
    if file := wanted.get("model"):
        offer(loaded("lmmpress_lmms_model", file))
    sys.argv[1:] = sys.argv[2:]
    runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)


def end_with_parent() -> None:
    """End this process and all that it has started as soon as the process ends that has started it."""
    from_parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(from_parent, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def loaded(name: str, file: str) -> ModuleType:
    """The module in a file, imported under that name."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_known(code: ModuleType, classes: list[list[str]]) -> None:
    """Register model types with transformers: model_type, auto class, config class and model class of each."""
    transformers = importlib.import_module("transformers")
    for model_type, auto_class, config_class, model_class in classes:
        config = getattr(code, config_class)
        transformers.AutoConfig.register(model_type, config)
        getattr(transformers, auto_class).register(config, getattr(code, model_class))


def offer(code: ModuleType) -> None:
    """Register the model class with lmms-eval."""
    models = importlib.import_module("lmms_eval.models")
    path = f"{code.__name__}.{code.Checkpoint.__name__}"
    models.MODEL_REGISTRY_V2.register_manifest(models.ModelManifest(model_id=MODEL, simple_class_path=path))


if __name__ == "__main__":
    main()
