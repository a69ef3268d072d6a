"""Computes what all runs of a preset share, before they begin: the teacher's states and the features of all pictures.

    python -m reproduce.fill PLAN.yaml [--set KEY=VALUE ...]

Else the first run would, and its processor time would have in it what the others find in the store.
"""

from pathlib import Path

from lmmpress.engine.materials import Materials
from lmmpress.plan import Plan
from lmmpress.result import Role
from lmmpress.store import open_store
from reproduce.once import arguments_of
from reproduce.outcome import Outcome

ROLES: tuple[Role, ...] = ("score", "distill", "gate")


def fill(plan: Plan) -> None:
    """Fill the store of a plan."""
    assert plan.store, "the experiments share a store"
    store = open_store(plan.store)
    materials = Materials(plan, store, store.add_checkpoint(Path(plan.model)))
    for role in ROLES:
        materials.features(role)
    _ = materials.teacher_states


if __name__ == "__main__":
    fill(arguments_of(__doc__))
    print(Outcome().model_dump_json())
