"""Reads data sets from untrusted sources: rows of questions and answers, and their images; refuses what is faulty."""

from lmmpress.data.address import METADATA, open_data
from lmmpress.data.pictures import open_picture
from lmmpress.data.rows import Row, Split, open_image, read_split, usual_splits

__all__ = ["METADATA", "Row", "Split", "open_data", "open_image", "open_picture", "read_split", "usual_splits"]
