"""What all settings have in common."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Settings(BaseModel):
    """Settings that do not change, without unknown ones. A fault's message does not repeat what was given.

    Settings named in `added_later` are not written while they have their default, so that the names of results and runs
    of earlier versions stay.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
    added_later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        fields = type(self).model_fields
        for name in self.added_later:
            if getattr(self, name) == fields[name].default:
                written.pop(name, None)
        return written
