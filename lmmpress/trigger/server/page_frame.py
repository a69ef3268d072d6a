"""What all pages share: who looks and in which language, the templates, the headers, and how faults are shown."""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException

from lmmpress.errors import UserError
from lmmpress.printing.visible import visible
from lmmpress.reporting import words
from lmmpress.trigger.claims import NotAllowedError
from lmmpress.trigger.server.guard import RefusedError, body_of
from lmmpress.trigger.server.issuer import IssuerError
from lmmpress.trigger.server.logs import note
from lmmpress.trigger.server.oidc import NotSignedInError, Why
from lmmpress.trigger.server.owner_view import OwnerView
from lmmpress.trigger.server.service import Service, UnknownError
from lmmpress.trigger.server.sign_in import Visitor
from lmmpress.trigger.server.texts import TAGS, Speech, preferred
from lmmpress.trigger.server_settings import Role
from lmmpress.trigger.texts import LANGUAGES, Language

_LANGUAGE_COOKIE = "__Host-lmmpress-language"
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "same-origin",  # with no-referrer a browser does not say where a form comes from
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
STATIC = {"page.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
_DONE = ("fired", "found", "cancelled", "retried", "approved", "promoted", "asked", "rolled_back")
_NOT_SIGNED_IN: dict[Why, str] = {
    "invalid": "sign_in.invalid",
    "denied": "sign_in.denied",
    "unverified": "sign_in.unverified",
    "nameless": "sign_in.nameless",
}
_FORM = "application/x-www-form-urlencoded"


class PageError(Exception):
    """A page that says why something was not done: the status, the key of its text, and the values of that."""

    def __init__(self, status: int, key: str, **values: object) -> None:
        super().__init__(key)
        self.status, self.key, self.values = status, key, values


class Pages:
    """What every page needs: who looks, in which language, and the templates."""

    def __init__(self, service: Service, view: OwnerView) -> None:
        self.service, self.view, self.sign_in = service, view, service.sign_in
        page = service.trigger.settings.server.page
        address = page.address
        self.base = urlsplit(address).path if address else ""
        self.issuer = urlsplit(page.oidc.issuer).netloc if page.oidc else ""
        self._secure = bool(address and address.startswith("https:"))
        self._templates = Environment(
            loader=PackageLoader("lmmpress.trigger.server", "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            name: getattr(words, name) for name in ("count", "short_count", "percent", "points", "short_digest")
        }

    def url(self, *parts: str, **query: str) -> str:
        """The address of a page; each part is quoted, whatever a stranger has called a model."""
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return self.base + "/" + "/".join(quote(part, safe="") for part in parts) + (f"?{asked}" if asked else "")

    def speech(self, request: Request, model: str | None = None) -> Speech:
        """The language: that of a link, of the cookie that the link has left, or of the browser."""
        asked = (request.query_params.get("lang"), request.cookies.get(_LANGUAGE_COOKIE))
        language = next((one for one in asked if one in LANGUAGES), None)
        models = self.service.trigger.settings.models
        zone = (models.get(model or "") or next(iter(models.values()))).policy.zone
        return Speech(
            cast(Language, language) if language else preferred(request.headers.get("accept-language", "")), zone
        )

    def page(self, request: Request, name: str, status: int = 200, about: str | None = None, **shown: Any) -> Response:
        """A page as the answer to a request. Its times are in the zone of the model that it is about."""
        visitor: Visitor = request.state.visitor
        speech = self.speech(request, about)
        text = self._templates.get_template(f"{name}.html").render(
            say=speech.say,
            speech=speech,
            tag=TAGS[speech.language],
            other=next(one for one in LANGUAGES if one != speech.language),
            other_tag=next(TAGS[one] for one in LANGUAGES if one != speech.language),
            person=visitor.person,
            visitor=visitor,
            sign_in=self.sign_in,
            issuer=self.issuer,
            may_act=visitor.person is not None and visitor.person.may("operator"),
            form_token=self.sign_in.form_token(visitor),
            url=self.url,
            here=self.base + quote(request.url.path, safe="/%"),
            now=self.service.trigger.clock(),
            done=done if (done := request.query_params.get("done", "")) in _DONE else "",
            static=self.static,
            **shown,
        )
        response = HTMLResponse(text, status, HEADERS)
        response.headers["content-language"] = TAGS[speech.language]
        return self._with_cookies(request, response)

    def redirect(self, request: Request, address: str) -> Response:
        """After a form: the page that shows what it has done."""
        return self._with_cookies(request, Response(status_code=303, headers=HEADERS | {"location": address}))

    def static(self, name: str) -> str:
        """The address of a file, which changes with its content."""
        return self.url("static", name, v=hashlib.sha256(static_file(name)).hexdigest()[:12])

    def _with_cookies(self, request: Request, response: Response) -> Response:
        visitor: Visitor | None = getattr(request.state, "visitor", None)
        if visitor is not None and visitor.is_new:
            response.headers.append("set-cookie", self.sign_in.cookie(visitor.session))
        if (asked := request.query_params.get("lang")) in LANGUAGES:
            response.headers.append(
                "set-cookie", f"{_LANGUAGE_COOKIE}={asked}; Path=/; Max-Age=31536000; Secure; HttpOnly; SameSite=Lax"
            )
        if self._secure:
            response.headers["strict-transport-security"] = "max-age=31536000"
        return response

    def enter(self, request: Request, role: Role = "viewer") -> Visitor:
        """The visitor, if that role is there. PageError where it is not."""
        visitor: Visitor = request.state.visitor
        if visitor.unknown:
            raise PageError(403, "fault.nobody", name=visitor.unknown)
        if visitor.person is None:
            raise _SignInError
        if not visitor.person.may(role):
            said = self.speech(request).say
            raise PageError(403, "fault.role", role=said(f"role.{visitor.person.role}"), needed=said(f"role.{role}"))
        return visitor

    async def form(self, request: Request) -> dict[str, str]:
        """The fields of a form that one of our own pages has sent. PageError where another has, or somebody else, and
        RefusedError where it is too large or takes too long: whoever sends it has not signed in yet."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            raise PageError(415, "fault.type")
        limits = self.service.trigger.settings.server.limits
        sent = await body_of(request.headers, request.receive, limits.request_bytes, limits.body_seconds)
        body = sent.decode("ascii", "replace")
        try:
            fields = dict(parse_qsl(body, keep_blank_values=True, errors="replace", max_num_fields=20))
        except ValueError:
            raise PageError(400, "fault.type") from None
        if fault := self.sign_in.fault_of(request, request.state.visitor, fields.pop("form", "")):
            raise PageError(403, f"fault.{fault}")
        return fields


class _SignInError(Exception):
    """Nobody is signed in."""


def route_with_pages(pages: Pages) -> type[APIRoute]:
    """The class of routes whose visitor is known, and whose faults are pages, not JSON."""

    class Route(APIRoute):
        """A route whose faults are pages, not JSON."""

        def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                visitor = request.state.visitor = pages.sign_in.visitor(request)
                request.state.by = visitor.person.name if visitor.person else None
                try:
                    return await handle(request)
                except _SignInError:
                    if not pages.sign_in.is_offered:
                        error = PageError(401, "sign_in.proxy")
                    elif request.method == "GET":
                        return pages.redirect(request, pages.url("sign-in", next=request.url.path))
                    else:
                        error = PageError(401, "fault.expired")
                except PageError as raised:
                    error = raised
                except (UnknownError, HTTPException):
                    error = PageError(404, "fault.unknown")
                except NotAllowedError as raised:
                    error = PageError(409, "fault.said", said=pages.speech(request).tell(*raised.texts).rstrip("."))
                except RefusedError as raised:
                    error = PageError(raised.status, "fault.said", said=str(raised).rstrip("."))
                except NotSignedInError as raised:
                    note("not signed in", logging.WARNING, reason=raised, request=request.state.request_id)
                    error = PageError(403, _NOT_SIGNED_IN[raised.why], issuer=pages.issuer)
                except IssuerError as raised:
                    note("issuer away", logging.WARNING, raised, request=request.state.request_id)
                    error = PageError(503, "sign_in.away", issuer=pages.issuer)
                except UserError as raised:
                    note("request failed", logging.WARNING, raised, request=request.state.request_id)
                    error = PageError(503, "fault.said", said="; ".join(raised.lines).rstrip("."))
                except Exception as raised:
                    note("request failed", logging.ERROR, raised, request=request.state.request_id)
                    error = PageError(500, "fault.server", request=request.state.request_id)
                text = pages.speech(request).say(error.key, **error.values)
                return pages.page(request, "fault", error.status, text=text)

            return handler

    return Route


@cache
def static_file(name: str) -> bytes:
    """A file of the page; the style has the colours and charts of the report before its own."""
    own = files("lmmpress.trigger.server").joinpath("pages", name).read_bytes()
    if name != "page.css":
        return own
    shared = (files("lmmpress.reporting").joinpath(name).read_bytes() for name in ("colours.css", "charts.css"))
    return b"".join(shared) + own


def _shown(value: object) -> object:
    """A value as a template prints it: control characters visible, and then escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
