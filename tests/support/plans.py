"""Plans and a cluster profile that tests of several rooms use."""

from pathlib import Path
from typing import Any

PLAN = {
    "model": "s3://models/antgmm",
    "data": "/data/maad",
    "store": "s3://models/store",
    "stages": {
        "block": {"step": 4, "max": 40},
        "ffn": {"step": 768, "max": 6144},
        "attention": {"step": 96, "max": 768},
        "io": {"step": 96, "max": 768},
    },
}
PROFILE = {
    "image": "registry.example.com/lmmpress@sha256:" + "1" * 64,
    "pull_secrets": ["registry"],
    "service_account": "lmmpress",
    "queue": "gpu-team-ads",
    "secrets": {"store": {"name": "lmmpress-store"}, "mlflow": {"name": "lmmpress-mlflow"}},
    "environment": {"AWS_ENDPOINT_URL": "http://s3.storage:9000", "MLFLOW_TRACKING_URI": "http://mlflow.lmmpress:5000"},
    "cache": {"claim": "lmmpress-cache"},
    "volumes": [{"claim": "ads", "path": "/data"}],
    "ttl": 604800,
    "defaults": {
        "requests": {"cpu": 4, "memory": "16Gi"},
        "limits": {"memory": "32Gi"},
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": [{"expressions": [{"key": "gpu.kind", "operator": "In", "values": ["H100", "A100"]}]}],
        "timeout": 86400,
        "retries": {"count": 3, "seconds": 60},
    },
    "components": {"distill": {"gpus": 4, "shm": "16Gi"}, "gate": {"requests": {"cpu": 1, "memory": "4Gi"}}},
}


SHORT = {"block": {"step": 1, "max": 1}, "ffn": {"step": 16, "max": 16}}

MOMENT = 0.1
"""The seconds for which tests measure speed where it is not what they test. A measurement goes on until it is sure, or
until this time is up; beside other tests it is never sure."""


def tiny_plan(model: Path, data: Path) -> dict[str, Any]:
    """Five steps on a tiny model, in seconds."""
    return {
        "model": str(model),
        "data": str(data),
        "tolerance": {"alpha": 0.9, "allow_zero": True},
        "importance": {"accumulation": "batch", "batch_size": 4},
        "stages": {
            "block": {"step": 1, "max": 2},
            "ffn": {"step": 16, "max": 16},
            "attention": {"step": 16, "max": 16},
            "io": {"step": 8, "max": 8},
        },
        "distillation": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 8},
        "evaluation": {"samples": 4, "batch_size": 2, "latency_samples": 2, "seconds": MOMENT},
    }
