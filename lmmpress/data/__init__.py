"""Reads data sets from untrusted sources: rows of questions and answers, and their images; refuses what is faulty."""

from lmmpress.data.address import open_data
from lmmpress.data.containers.imagefolder import METADATA
from lmmpress.data.containers.recognise import files_with_rows
from lmmpress.data.index import paths_with_rows
from lmmpress.data.pictures import open_picture
from lmmpress.data.row import Row, Turn
from lmmpress.data.rows import Split, open_image, read_split, usual_splits

__all__ = [
    "METADATA",
    "Row",
    "Split",
    "Turn",
    "files_with_rows",
    "open_data",
    "open_image",
    "open_picture",
    "paths_with_rows",
    "read_split",
    "usual_splits",
]
