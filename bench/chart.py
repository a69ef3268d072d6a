"""Measures how long it takes to lint the chart and to render each case of its tests for each version of Kubernetes.

python bench/chart.py

Every lint and every render runs in a separate Helm process, one after another.
"""

import sys
import time
from pathlib import Path

from common import show

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support import chart


def main() -> None:
    chart.program()  # which fetches Helm, once
    lints, renders = [], []
    for values, apis in chart.CASES.values():
        begun = time.perf_counter()
        assert chart.run_helm("lint", "--strict", str(chart.CHART), values=values).returncode == 0
        lints.append(time.perf_counter() - begun)
        for version in chart.VERSIONS:
            begun = time.perf_counter()
            chart.render_text(values, apis, version)
            renders.append(time.perf_counter() - begun)
    seconds = sum(lints) + sum(renders)
    show({"lints": len(lints), "renders": len(renders), "seconds": seconds, "slowest_render": max(renders)})


if __name__ == "__main__":
    main()
