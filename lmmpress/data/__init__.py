"""Data sets of others: rows of questions and answers, the pictures that they are about, and what is refused of them."""

from lmmpress.data.address import open_data
from lmmpress.data.pictures import open_picture
from lmmpress.data.rows import METADATA, Row, Split, open_image, read_split, usual_splits

__all__ = ["METADATA", "Row", "Split", "open_data", "open_image", "open_picture", "read_split", "usual_splits"]
