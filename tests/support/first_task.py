"""What the first task of a pipeline is given."""

from typing import Any

from lmmpress.plan import Plan
from lmmpress.tasks.parameters import amounts_of, amounts_text, arguments_of, as_compiled


def asked_by(plan: Plan, name: str) -> dict[str, Any]:
    """What a pipeline that was compiled from a plan gives to its first task."""
    amounts = amounts_of(plan)
    given = {key: value for key, value in arguments_of(plan, name).items() if key not in amounts}
    compiled = as_compiled(plan.stages, plan.pipeline.approve, plan.compare)
    # numbers come back as floats
    return given | {
        "compiled": compiled,
        "amounts": amounts_text(
            {key: value if isinstance(value, str) else float(value) for key, value in amounts.items()}
        ),
    }
