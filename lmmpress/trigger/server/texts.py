"""The page in one language: its texts beside those of the trigger, and how it writes times and durations."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from lmmpress.printing.credentials import without_credentials
from lmmpress.printing.visible import visible
from lmmpress.trigger.texts import LANGUAGES, Language, Text, Texts, core_texts, read_texts

TAGS: dict[Language, str] = {"en": "en", "zh": "zh-Hans"}
"""The languages as HTML names them."""
_CHART = "chart."
_ONE_LANGUAGE = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]+)?\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?))?\s*")


@cache
def page_texts() -> Texts:
    """The texts that only the page has."""
    return read_texts("lmmpress.trigger.server", "pages", "texts.yaml")


@cache
def all_texts() -> Texts:
    """Every text by its key, and in each language."""
    return core_texts() | page_texts()


def preferred(accept_language: str) -> Language:
    """The language of ours that a browser likes most, by its header Accept-Language; English if it names none."""
    best: tuple[float, Language] = (0.0, "en")
    for part in accept_language[:500].split(","):
        found = _ONE_LANGUAGE.fullmatch(part)
        name = found[1].lower() if found else ""
        weight = float(found[2]) if found and found[2] else 1.0
        for language in LANGUAGES:
            if name == language and weight > best[0]:
                best = (weight, language)
    return best[1]


class Speech:
    """The page in one language, with times in one zone."""

    def __init__(self, language: Language, zone: str = "UTC") -> None:
        self.language, self.zone = language, zone

    def say(self, key: str, **values: object) -> str:
        """A text with values filled in. With a value `n` it is the form for that number, if there are two."""
        texts = all_texts()
        if key not in texts and "n" in values:
            key += ".one" if values["n"] == 1 else ".many"
        # a value of a stranger's is filled in once, and is no template itself
        return texts[key][self.language].format(**{name: visible(value) for name, value in values.items()})

    def tell(self, *texts: Text) -> str:
        """What the core says, such as why something was refused."""
        return self.say("fault.and").join(visible(without_credentials(one.to(self.language))) for one in texts)

    def has(self, key: str) -> bool:
        """Whether there is such a text."""
        return key in all_texts()

    def duration(self, seconds: float) -> str:
        """A time that something takes."""
        minutes = round(seconds / 60)
        if minutes < 1:
            return self.say("unit.moment")
        if minutes < 60:
            return self.say("unit.minutes", n=minutes)
        if minutes < 2 * 24 * 60:
            return self.say("unit.long", hours=minutes // 60, minutes=f"{minutes % 60:02d}")
        return self.say("unit.days", n=round(minutes / 60 / 24))

    def age(self, span: timedelta) -> str:
        """How long ago something was, in whole days, hours or minutes."""
        seconds = max(0.0, span.total_seconds())
        if seconds >= 24 * 3600:
            return self.say("unit.days", n=int(seconds // (24 * 3600)))
        if seconds >= 3600:
            return self.say("unit.hours", n=int(seconds // 3600))
        return self.say("unit.minutes", n=int(seconds // 60)) if seconds >= 60 else self.say("unit.moment")

    def when(self, at: datetime) -> str:
        """A time to the minute, in the zone."""
        return f"{at.astimezone(ZoneInfo(self.zone)):%Y-%m-%d %H:%M}"

    def chart(self) -> Callable[[str], str]:
        """The `say` of `lmmpress.reporting.charts`."""
        known = {texts["en"]: texts[self.language] for key, texts in all_texts().items() if key.startswith(_CHART)}
        return lambda phrase: known.get(phrase, phrase)
