"""A container sees the memory of its machine, and gets what its limit leaves."""

from pathlib import Path

import psutil
import pytest

from lmmpress.host.memory import available_memory

MIB = 1 << 20


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "{most}\n", "memory.current": "{now}\n", "memory.stat": "anon 5\ninactive_file {file}\n"},
        {
            "memory/memory.limit_in_bytes": "{most}",
            "memory/memory.usage_in_bytes": "{now}",
            "memory/memory.stat": "total_inactive_file {file}",
        },
    ],
    ids=["version 2", "version 1"],
)
def test_a_limit_counts_and_the_page_cache_does_not(files: dict[str, str], tmp_path: Path) -> None:
    told = {name: text.format(most=8 * MIB, now=6 * MIB, file=MIB) for name, text in files.items()}
    assert available_memory(written(tmp_path, told)) == 3 * MIB


@pytest.mark.parametrize("limit", ["max", str(1 << 62), ""])
def test_without_a_limit_the_machine_counts(limit: str, tmp_path: Path) -> None:
    folder = written(tmp_path, {"memory.max": limit, "memory.current": "1", "memory.stat": "inactive_file 0"})
    before = psutil.virtual_memory().available
    assert available_memory(folder) == pytest.approx(before, rel=0.5)
    assert available_memory(tmp_path / "nothing") == pytest.approx(before, rel=0.5)
