"""How a training saves memory."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

Optimizer = Literal["adamw", "adamw8bit"]
Weights = Literal["float32", "bfloat16"]


class Economy(BaseModel):
    """What a training does to take less memory; by default nothing.

    With `recompute` only the inputs of blocks are kept for the backward pass, which makes each block's forward pass
    again. The averages of the `optimizer` have 32 bits, or 8. The student's `weights`, and with them its gradients, are
    float32, or bfloat16 that is rounded at random: up or down, and to the sum of the updates on average. `why` says why
    a training was given this economy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recompute: bool = False
    optimizer: Optimizer = "adamw"
    weights: Weights = "float32"
    why: str = ""

    @property
    def needs_torchao(self) -> bool:
        """Whether its optimizer is one of torchao, and not torch's own."""
        return self.optimizer != "adamw" or self.weights != "float32"

    @property
    def saves(self) -> bool:
        """Whether it does anything."""
        return self.recompute or self.needs_torchao

    def __str__(self) -> str:
        """As people say it: recomputation, 8-bit averages, bfloat16 weights."""
        parts = {
            "recomputation": self.recompute,
            "8-bit averages": self.optimizer == "adamw8bit",
            "bfloat16 weights": self.weights == "bfloat16",
        }
        return ", ".join(name for name, used in parts.items() if used) or "no economy"


NO_ECONOMY = Economy()


def economy_in(value: Any) -> Economy | None:
    """The economy in a record; None where none is noted, and if a stranger has changed it."""
    try:
        return Economy.model_validate(value)
    except ValidationError:
        return None
