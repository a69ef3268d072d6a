"""The pages' templates: everything that is printed in them is escaped, with control characters visible."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from lmmpress.printing.visible import visible
from lmmpress.reporting import words

_FILTERS = (
    *("count", "short_count", "percent", "points", "worth", "lost", "interval"),
    *("duration", "short_digest", "chance", "brief"),
)


def template(name: str) -> Template:
    """A template of this room, with the words of the report as filters."""
    environment = Environment(
        loader=PackageLoader("lmmpress.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(words, name) for name in _FILTERS}
    return environment.get_template(name)


def _shown(value: object) -> object:
    """A value as the template prints it; the template escapes everything except markup."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
