"""The page for people: HTML for the owner of a model, and forms for those who may act.

It works without JavaScript. A few lines of it fetch the page again while a run is followed. Nothing is loaded from
elsewhere, and no script or style stands in the HTML.
"""

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool

from lmmpress.reporting import charts
from lmmpress.trigger.acts import LONGEST_WHY
from lmmpress.trigger.claims import AGAIN, Cause, Claim, NotAllowedError
from lmmpress.trigger.fire import Refused
from lmmpress.trigger.promotion import Waiting
from lmmpress.trigger.server.logs import note
from lmmpress.trigger.server.oidc import CALLBACK
from lmmpress.trigger.server.owner_view import RunShown, seconds_of
from lmmpress.trigger.server.page_frame import HEADERS, STATIC, PageError, Pages, route_with_pages, static_file
from lmmpress.trigger.server.service import UnknownError
from lmmpress.trigger.server.sign_in import Visitor

_OWN_PATH = re.compile(r"/(?!/)[A-Za-z0-9._~%/@+-]*")
_LONGEST_PATH = 1000
_SHOWN = 200  # runs of a history
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def page_router(pages: Pages) -> APIRouter:
    """The routes of the page."""
    service, view = pages.service, pages.view

    router = APIRouter(route_class=route_with_pages(pages), include_in_schema=False)

    @router.get("/")
    def overview(request: Request) -> Response:
        """All watched models, or the one there is."""
        pages.enter(request)
        shown = view.models()
        plans = {model.name: view.plans(model) for model in shown}
        attention = sum(model.needs_attention for model in shown)
        return pages.page(request, "overview", models=shown, plans=plans, attention=attention)

    @router.get("/models/{model}")
    def model(request: Request, model: str) -> Response:
        """A watched model with its history."""
        visitor = pages.enter(request)
        shown = view.model(model)
        about_service = view.service(shown, visitor.person.name if visitor.person else "")
        return pages.page(
            request,
            "model",
            about=model,
            shown=shown,
            plans=view.plans(shown),
            service=about_service,
            online=view.online(shown),
            longest=LONGEST_WHY,
        )

    @router.get("/history")
    def history(request: Request) -> Response:
        """All runs, newest first."""
        pages.enter(request)
        return pages.page(request, "history", claims=view.claims()[:_SHOWN])

    @router.get("/runs/{key}")
    def run(request: Request, key: str) -> Response:
        """A run."""
        pages.enter(request)
        return _run_page(pages, request, view.run(service.claim(key)))

    @router.get("/runs/{key}/report")
    def report(request: Request, key: str) -> Response:
        """The report of a run."""
        pages.enter(request)
        return _sandboxed(view.report(service.claim(key)))

    @router.get("/runs/{key}/comparison")
    def comparison(request: Request, key: str) -> Response:
        """The comparison that a run has made."""
        pages.enter(request)
        return _sandboxed(view.comparison(service.claim(key)), "img-src data:; ")

    @router.get("/acts")
    def acts(request: Request, day: str = "") -> Response:
        """Who has done what on a day."""
        pages.enter(request, "administrator")
        chosen = day if _DAY.fullmatch(day) else f"{service.trigger.clock().astimezone(UTC):%Y-%m-%d}"
        return pages.page(request, "acts", day=chosen, acts=service.acts(chosen)[::-1], at=_at)

    @router.get("/sign-in")
    def sign_in(request: Request, next: str = "/") -> Response:
        """Sign in with a token, or at the issuer."""
        if not pages.sign_in.is_offered:
            raise PageError(401, "sign_in.proxy")
        return pages.page(request, "sign_in", next=_own(next), wrong=False)

    @router.post("/sign-in")
    async def signing_in(request: Request) -> Response:
        """Begin a session for whom a token stands for."""
        fields = await pages.form(request)
        session = pages.sign_in.by_token(fields.get("token", "").strip())
        if session is None:
            note("wrong token on the page", logging.WARNING, request=request.state.request_id)
            return pages.page(request, "sign_in", 403, next=_own(fields.get("next", "")), wrong=True)
        answer = pages.redirect(request, pages.base + _own(fields.get("next", "")))
        answer.headers.append("set-cookie", pages.sign_in.cookie(session))
        return answer

    @router.get("/sign-in/issuer")
    def to_issuer(request: Request, next: str = "/") -> Response:
        """Send the browser to the issuer. This is a link and no form, because a form may lead to no other site."""
        if pages.sign_in.oidc is None:
            raise UnknownError
        return pages.redirect(request, pages.sign_in.begin_at_issuer(request.state.visitor.session, _own(next)))

    @router.get(CALLBACK)
    def from_issuer(request: Request) -> Response:
        """Begin a session for whom the issuer has sent back."""
        if pages.sign_in.oidc is None:
            raise UnknownError
        session, path = pages.sign_in.by_issuer(request.state.visitor, _once_each(request))
        note("signed in at the issuer", by=session.name, request=request.state.request_id)
        answer = pages.redirect(request, pages.base + _own(path))
        answer.headers.append("set-cookie", pages.sign_in.cookie(session))
        return answer

    @router.post("/sign-out")
    async def signing_out(request: Request) -> Response:
        """End the session."""
        await pages.form(request)
        answer = pages.redirect(request, pages.url(*(["sign-out"] if request.state.visitor.by_issuer else [])))
        answer.headers.append("set-cookie", pages.sign_in.no_cookie())
        return answer

    @router.get("/sign-out")
    def signed_out(request: Request) -> Response:
        """Say that the issuer may still know the person, and lead there."""
        if pages.sign_in.oidc is None:
            raise UnknownError
        return pages.page(request, "sign_out", there=pages.sign_in.oidc.sign_out())

    def act(path: str, work: Callable[[Request, Visitor, dict[str, str], str], str]) -> None:
        """A form that an operator may send: `work` does what it asks, and gives the page to show then."""

        async def acting(request: Request) -> Response:
            visitor = pages.enter(request, "operator")
            fields = await pages.form(request)
            name = request.path_params["name"]
            address = await run_in_threadpool(work, request, visitor, fields, name)
            view.forget()
            return pages.redirect(request, address)

        router.post(path)(acting)

    def fire(request: Request, visitor: Visitor, fields: dict[str, str], name: str) -> str:
        assert visitor.person is not None
        before = {claim.key for claim in service.claims(name)}
        why, plan = _why(fields, needed=False), fields.get("plan") or None
        found = service.fire(name, visitor.person, why, plan, request.state.request_id, Cause.page)
        if isinstance(found, Refused):
            raise NotAllowedError(found.text)
        return pages.url("runs", found.key, done="found" if found.key in before else "fired")

    def cancel(request: Request, visitor: Visitor, fields: dict[str, str], name: str) -> str:
        assert visitor.person is not None
        service.cancel(name, visitor.person, _why(fields), request.state.request_id)
        return pages.url("runs", name, done="cancelled")

    def retry(request: Request, visitor: Visitor, fields: dict[str, str], name: str) -> str:
        assert visitor.person is not None
        found = service.retry(name, visitor.person, _why(fields), request.state.request_id)
        return pages.url("runs", found.key, done="retried")

    def approve(request: Request, visitor: Visitor, fields: dict[str, str], name: str) -> str:
        assert visitor.person is not None
        why = _why(fields, needed=False)
        service.approve(name, fields.get("stage", ""), visitor.person, why, request.state.request_id)
        return pages.url("runs", name, done="approved")

    def put_into_service(request: Request, visitor: Visitor, fields: dict[str, str], name: str) -> str:
        assert visitor.person is not None
        who, why = visitor.person, _why(fields)
        version, seen = fields.get("version", ""), fields.get("seen") or None
        found = service.promote(name, version, who, why, seen, request.state.request_id)
        return pages.url("models", name, done="asked" if isinstance(found, Waiting) else "promoted")

    def take_back(request: Request, visitor: Visitor, fields: dict[str, str], name: str) -> str:
        assert visitor.person is not None
        who, why = visitor.person, _why(fields)
        seen = fields.get("seen") or None
        service.roll_back(name, who, why, seen, request.state.request_id)
        return pages.url("models", name, done="rolled_back")

    act("/models/{name}/promote", put_into_service)
    act("/models/{name}/roll-back", take_back)
    act("/models/{name}/fire", fire)
    act("/runs/{name}/cancel", cancel)
    act("/runs/{name}/retry", retry)
    act("/runs/{name}/approve", approve)

    @router.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        """A file of the page. Its address changes with its content, so browsers may keep it."""
        if name not in STATIC:
            raise UnknownError
        kept = {"cache-control": "public, max-age=31536000, immutable"} if request.query_params.get("v") else {}
        return Response(static_file(name), media_type=STATIC[name], headers=HEADERS | kept)

    return router


def _run_page(pages: Pages, request: Request, shown: RunShown) -> Response:
    progress, model = shown.progress, shown.claim.question.model
    speech = pages.speech(request, model)
    drawn = None
    if progress and progress.steps:
        papers = (charts.PAGE, charts.PHONE)
        drawn = Markup("").join(charts.accuracy_chart(progress, paper, speech.chart()) for paper in papers)
    stages = progress.stages if progress else []
    return pages.page(
        request,
        "run",
        about=model,
        model=model,
        run=shown,
        claim=shown.claim,
        end=pages.view.end(shown.claim),
        progress=progress,
        stages=stages,
        under_way=next((stage for stage in stages if stage.state == "under way"), None),
        drawn=drawn,
        accuracy=next((s.accuracy for s in reversed(progress.steps) if s.decision != "rolled back"), None)
        if progress
        else None,
        took=seconds_of(shown.claim),
        may_retry=shown.claim.state in AGAIN,
        link=_link(shown.claim),
        longest=LONGEST_WHY,
    )


def _sandboxed(text: str | None, allowed: str = "") -> Response:
    """A page of a run's own, which shows what strangers have written: it runs nothing, and the browser takes its style,
    what is `allowed` beside that, and nothing else. UnknownError if there is no such page."""
    if text is None:
        raise UnknownError
    styles = [hashlib.sha256(style.encode("utf-8")).digest() for style in _styles_in(text)]
    hashes = " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in styles)
    policy = f"default-src 'none'; style-src {hashes}; {allowed}base-uri 'none'; frame-ancestors 'none'; sandbox"
    return HTMLResponse(text, headers=HEADERS | {"content-security-policy": policy})


def _link(claim: Claim) -> str | None:
    """Where people see the run, if that is an address that a browser can open."""
    link = claim.sent.link if claim.sent else ""
    return link if link.startswith(("https://", "http://")) else None


def _why(fields: Mapping[str, str], needed: bool = True) -> str:
    why = fields.get("why", "").strip()
    if (needed and not why) or len(why) > LONGEST_WHY:
        raise PageError(422, "fault.why", most=LONGEST_WHY)
    return why


def _own(path: str) -> str:
    """A path of the page; the overview for anything else."""
    return path if len(path) <= _LONGEST_PATH and _OWN_PATH.fullmatch(path) and not path.startswith("/sign-") else "/"


def _once_each(request: Request) -> dict[str, str]:
    """What the issuer has sent along; nothing where it is there twice, because then nobody knows which one counts."""
    sent = request.query_params.multi_items()
    return {} if len(sent) != len({name for name, _ in sent}) else dict(sent)


def _styles_in(text: str) -> list[str]:
    return re.findall(r"<style>(.*?)</style>", text, re.DOTALL)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
