"""A plan's settings of the caches: what of the teacher's work a run keeps in files, and how much room they may take."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, TypeAdapter

from lmmpress.settings.base import Settings

_BYTES = TypeAdapter(ByteSize)


def _as_bytes(value: Any) -> int:
    """A size in a plan as a number of bytes: 200GB, 64GiB, or a whole number. ValueError for anything else."""
    try:
        if not isinstance(value, str | int) or isinstance(value, bool) or (size := _BYTES.validate_python(value)) < 0:
            raise ValueError
    except ValueError:  # as is the ValidationError of pydantic
        raise ValueError("input should be a size, such as 200GB, 64GiB or a whole number of bytes") from None
    return int(size)


Bytes = Annotated[int, BeforeValidator(_as_bytes)]


class CacheSettings(Settings):
    """The budget of the caches: of a run's visual features and teacher's states.

    `disk` is how many bytes their files may have, without it as many as the disk holds; what does not fit is computed
    in every step. Files are read by position, and the system keeps in memory what it has room for (`auto`); with a
    number of bytes for `memory`, no more than these stay there once they were read. `dtype` is the dtype of the files,
    without it that of computation.
    """

    memory: Literal["auto"] | Bytes = "auto"
    disk: Bytes | None = None
    dtype: Literal["bfloat16", "float32"] | None = None
