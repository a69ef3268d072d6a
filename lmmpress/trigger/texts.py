"""What the trigger tells people, in every language: the texts are in texts.yaml, by their keys.

What is said in the core, such as why a run is refused, is a `Text`: a key and its values. In English it is what the
command line, logs and REST show; the page and notices show it in the language of whoever reads them.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
Texts = dict[str, dict[Language, str]]
"""Texts by their keys, each in every language."""


@dataclass(init=False)
class Text:
    """A text of texts.yaml by its key, and its values, which may be texts too. As a string it is English."""

    key: str
    values: "dict[str, str | int | Text]"

    def __init__(self, key: str, /, **values: "str | int | Text") -> None:
        self.key, self.values = key, values

    def __str__(self) -> str:
        return self.to("en")

    def to(self, language: Language) -> str:
        """The text in a language. Its values are as they came, from strangers too: whoever shows it makes it safe."""
        values = {name: one.to(language) if isinstance(one, Text) else one for name, one in self.values.items()}
        return core_texts()[self.key][language].format(**values)


@cache
def core_texts() -> Texts:
    """The texts of this file's neighbour."""
    return read_texts("lmmpress.trigger", "texts.yaml")


def read_texts(package: str, *path: str) -> Texts:
    """The texts in a file of a package."""
    found: Texts = yaml.safe_load(files(package).joinpath(*path).read_text("utf-8"))
    return found
