"""Carries out the instructions of the Dockerfile in a separate root file system, without a container engine.

The stages of a target and their ARG, ENV, COPY, RUN, USER and WORKDIR are read from the Dockerfile itself.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

CONTEXT = Path(__file__).resolve().parents[2]
DOCKERFILE = CONTEXT / "docker" / "Dockerfile"
ON_THE_HOST = ("tmp", "proc", "dev", "sys", "src", "wheels", "opt", "cache", "out", "store", "minio", "lost+found")
MOUNTED = ("tmp", "store", "minio")
"""The writable mounts of a pod in a cluster: /tmp, a volume for the store, and Kubeflow's folder for artifacts."""


@dataclass
class Stage:
    """The instructions of a stage: from its FROM to the next one."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def read_dockerfile(path: Path = DOCKERFILE) -> tuple[dict[str, str], dict[str, Stage]]:
    """The ARGs before the first FROM, and the stages by name."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stage = stages[name] = Stage(name, base)
        elif stage is None:
            name, _, value = rest.partition("=")
            arguments[name] = value
        else:
            stage.instructions.append((instruction, rest.strip()))
    return arguments, stages


def filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], ""), text)


class Machine:
    """A root file system in which stages are built, one after another, and tasks run."""

    def __init__(self, work: Path, root: Path | None) -> None:
        self.work = work
        self.bare = root is not None
        self.root = root or work / "root"
        self.binds: list[tuple[Path, str]] = []
        if root is None:
            self._borrow()
        for name in MOUNTED:
            (work / "mounted" / name).mkdir(parents=True, exist_ok=True)
            (work / "mounted" / name).chmod(0o777)
            self.path(name).mkdir(parents=True, exist_ok=True)
        for name in ("proc", "dev"):
            self.path(name).mkdir(parents=True, exist_ok=True)
        self.path("opt").mkdir(exist_ok=True)
        for entry in Path("/opt").iterdir() if Path("/opt").is_dir() else ():  # may contain packages for pip
            if entry.is_dir() and entry.name not in ("lmmpress", "own"):
                self._bind(entry, f"opt/{entry.name}")

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def _borrow(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for entry in sorted(Path("/").iterdir()):
            if entry.name in ON_THE_HOST or self.work.is_relative_to(entry):
                continue
            if entry.is_symlink():
                if not self.path(entry.name).is_symlink():
                    self.path(entry.name).symlink_to(os.readlink(entry))
            elif entry.is_dir():
                self._bind(entry, entry.name)
        if sys.base_prefix != "/usr":
            self.binds.append((Path(sys.base_prefix), "usr/local"))

    def _bind(self, source: Path, name: str) -> None:
        self.path(name).mkdir(parents=True, exist_ok=True)
        self.binds.append((source, name))

    def run(
        self, command: list[str], environment: dict[str, str], folder: str = "/", user: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in this root file system. With `user` it runs as in a pod: read-only and without network."""
        root = shlex.quote(str(self.root))
        lines = ["set -e", f"mount --bind {root} {root}"]
        for source, name in self.binds:
            target = shlex.quote(str(self.path(name)))
            lines.append(f"mount --bind {shlex.quote(str(source))} {target}")
            lines.append(f"mount -o remount,bind,ro {target}")
        for name in MOUNTED:
            lines.append(f"mount --bind {shlex.quote(str(self.work / 'mounted' / name))} {root}/{name}")
        lines += [f"mount --rbind /{name} {root}/{name}" for name in ("proc", "dev")]
        if user:
            lines.append(f"mount -o remount,bind,ro {root}")
        as_user = [f"--userspec={user}", "--groups="] if user and os.geteuid() == 0 else []
        values = [f"{name}={value}" for name, value in environment.items()]
        inside = ["chroot", *as_user, str(self.root), "env", "-i", f"--chdir={folder}", *values, *command]
        lines.append("exec " + shlex.join(inside))
        own = ["--mount", "--propagation", "private", *(["--net"] if user else [])]
        own += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return subprocess.run(
            ["unshare", *own, "sh", "-c", "\n".join(lines)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )


@dataclass
class Image:
    """The settings for running an image, from the instructions of its stages."""

    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    folder: str = "/"
    health: list[str] = field(default_factory=list)


class Builder:
    def __init__(self, machine: Machine, given: dict[str, str]) -> None:
        self.machine = machine
        self.arguments, self.stages = read_dockerfile()
        self.arguments |= {name: value for name, value in given.items() if name in self.arguments}
        self.given = given
        self.built: dict[str, Image] = {}

    def chain(self, target: str) -> list[Stage]:
        """The stages that a stage is based on, and the stage itself as the last."""
        stage = self.stages[target]
        base = filled(stage.base, self.arguments)
        return [*(self.chain(base) if base in self.stages else []), stage]

    def make(self, target: str) -> Image:
        """Build the stages of a target. Stages that it copies from come first, since all share one file system here."""
        needed = self.chain(target)
        for stage in needed:
            for instruction, rest in stage.instructions:
                if instruction == "COPY" and (found := re.match(r"--from=(\S+)", rest)):
                    self.make(found[1])
        image = Image()
        for stage in needed:
            if stage.name not in self.built:
                self.built[stage.name] = self._carry_out(stage, replace(image, environment=dict(image.environment)))
            image = self.built[stage.name]
        return image

    def _carry_out(self, stage: Stage, image: Image) -> Image:
        values: dict[str, str] = {}
        for instruction, rest in stage.instructions:
            if instruction == "ARG":
                name, _, default = rest.partition("=")
                values[name] = self.given.get(name) or self.arguments.get(name) or default
            elif instruction == "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    image.environment[name] = filled(value, values)
            elif instruction == "WORKDIR":
                image.folder = rest
                self.machine.path(rest).mkdir(parents=True, exist_ok=True)
            elif instruction == "USER":
                image.user = rest
            elif instruction == "COPY":
                self._copy(rest)
            elif instruction == "RUN":
                self._run(stage, rest, image, values)
            elif instruction == "HEALTHCHECK":
                image.health = json.loads(rest[rest.index("[") :])
            else:
                assert instruction in ("LABEL", "ENTRYPOINT", "CMD"), instruction
        return image

    def _copy(self, rest: str) -> None:
        *sources, target = shlex.split(rest)
        place = self.machine.path(target)
        if sources[0].startswith("--from="):
            _, source = sources
            if source != target:
                shutil.copytree(self.machine.path(source), place, symlinks=True, dirs_exist_ok=True)
            return
        for source in sources:
            origin = CONTEXT / source
            if origin.is_dir():
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(origin, place, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, place)

    def _run(self, stage: Stage, command: str, image: Image, values: dict[str, str]) -> None:
        if stage.name == "runtime" and not self.machine.bare:
            return
        if stage.name == "torch-cpu" and "TORCH_INDEX" in self.given:
            command = command.replace("--no-deps ", "")
        begun = time.monotonic()
        done = self.machine.run(["sh", "-c", command], building() | values | image.environment, image.folder)
        title = f"{stage.name}: {command}"
        if done.returncode:
            raise SystemExit(f"{title}\n{done.stdout[-2000:]}{done.stderr[-4000:]}\nexit code {done.returncode}")
        print(f"{title}\n  {time.monotonic() - begun:.0f} s", flush=True)


def building() -> dict[str, str]:
    """The environment of a RUN beside its own ENV and ARG: the settings of pip on this machine."""
    names = [name for name in os.environ if re.match(r"PIP_|SSL_|REQUESTS_|.*_proxy$", name, re.IGNORECASE)]
    kept = {name: os.environ[name] for name in names if name != "PIP_INDEX_URL"}
    return kept | {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"} | libraries()


def libraries() -> dict[str, str]:
    """The variable with which a Python that was moved finds its shared library."""
    return {"LD_LIBRARY_PATH": "/usr/local/lib"} if any(Path(sys.base_prefix, "lib").glob("libpython3*.so*")) else {}


def read_argument(builder: Builder, name: str) -> str:
    """The default of an ARG of a stage; KeyError where no stage has it."""
    for stage in builder.stages.values():
        for instruction, rest in stage.instructions:
            if instruction == "ARG" and rest.startswith(f"{name}="):
                return rest.partition("=")[2]
    raise KeyError(name)
