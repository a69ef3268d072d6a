"""Measures the size of a compiled pipeline and of its Argo object, for 10, 8, 8 and 8 steps and a full profile.

python bench/pipeline_size.py
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml
from common import show

from lmmpress.kubeflow import compile as compiling
from lmmpress.kubeflow.estimate import LIMIT, estimate
from lmmpress.plan import parse_plan
from lmmpress.presets import preset
from lmmpress.tasks.cluster_profile import Profile
from lmmpress.tasks.granularity import Granularity

ADDRESSES = {"model": "s3://models/antgmm", "data": "/data/maad", "store": "s3://models/store"}


def main() -> None:
    plan, profile = parse_plan(preset("paper", False) | ADDRESSES), documented_profile()
    found: dict[str, Any] = {"steps": list(map(plan.most_steps, plan.stages)), "limit": LIMIT}
    shared = compiling.share
    for granularity in Granularity:
        sizes: dict[str, Any] = {}
        for name, share in (("as compiled by kfp", lambda *_: None), ("shared", shared)):
            compiling.share = share
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "pipeline.yaml"
                compiling.compile_plan(plan, "antgmm", profile, granularity, target)
                spec, platform = yaml.safe_load_all(target.read_text("utf-8"))
                size = estimate(spec, platform, {stage.name: plan.most_steps(stage) for stage in plan.stages})
                object_sizes = {"object_raw": size.raw, "object_stored": size.stored, "nodes": size.nodes}
                sizes[name] = {"bytes": target.stat().st_size} | object_sizes
        found[granularity] = sizes
    show(found)


def documented_profile() -> Profile:
    """The profile in docs/kubeflow.md, which has every key, for distillation on one node."""
    text = (Path(__file__).parent.parent / "docs" / "kubeflow.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(image: .*?)```", text, re.DOTALL)
    raw = yaml.safe_load(example.replace("sha256:...", "sha256:" + "1" * 64))
    del raw["components"]["distill"]["nodes"]
    return Profile.model_validate(raw)


if __name__ == "__main__":
    main()
