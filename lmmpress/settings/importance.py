"""A plan's settings of how dimensions are scored."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lmmpress.settings.base import Settings


class Importance(Settings):
    """How dimensions are scored (Eq. 1-4).

    `taylor` is Eq. 1. `fisher` is its second moment for a dimension as a whole: g * theta, summed over all that the
    dimension owns, squared, with the gradient of answers that the model itself draws at `temperature`; `accumulation`
    says of what: one sample, or a batch.
    `accumulation` says where the absolute value of Eq. 1 is taken: of the gradient of the whole data set, as printed,
    of each batch, or of each sample. `owned` says which parameters a dimension's score sums: the weight matrices of
    Eq. 2-4, or `all` (biases, norms and embeddings too). `magnitude` and `random` are controls that use no data.
    `passes` splits a data-set gradient over several passes; each holds only its share in memory. `reliability` is how
    well the scores of two halves of the data agree; for a data-set gradient it needs a second one in memory.
    `processes` share the rows, one per GPU if there are GPUs; `fisher` takes one.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"temperature", "reliability", "processes"})

    criterion: Literal["taylor", "fisher", "magnitude", "random"] = "taylor"
    temperature: Annotated[float, Field(gt=0)] = 1.0
    accumulation: Literal["dataset", "batch", "sample"] = "dataset"
    owned: Literal["equations", "all"] = "equations"
    batch_size: Annotated[int, Field(gt=0)] = 32
    passes: Annotated[int, Field(gt=0)] = 1
    processes: Annotated[int, Field(gt=0)] = 1
    rows: Annotated[int, Field(gt=0)] | None = None
    reliability: bool = True
