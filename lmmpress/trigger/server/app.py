"""The server's HTTP: routes, who may use them, and how faults are answered. `lmmpress.trigger.server.service` works."""

import asyncio
import hashlib
import importlib.metadata
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from lmmpress.errors import UserError
from lmmpress.evaluation.comparison import Comparison
from lmmpress.trigger.claims import NotAllowedError
from lmmpress.trigger.fire import Refused
from lmmpress.trigger.made_from import MadeFrom, MlflowMadeFrom
from lmmpress.trigger.online import RowsError
from lmmpress.trigger.promotion import compressed_of
from lmmpress.trigger.server import views
from lmmpress.trigger.server.deliveries import ID, PATH, SIGNATURE, TIMESTAMP, open_delivery
from lmmpress.trigger.server.deliveries import Refused as RefusedDelivery
from lmmpress.trigger.server.guard import Guard, RefusedError, Slots, body_of
from lmmpress.trigger.server.logs import note
from lmmpress.trigger.server.metrics import CONTENT_TYPE
from lmmpress.trigger.server.owner_view import OwnerView
from lmmpress.trigger.server.page import page_router
from lmmpress.trigger.server.page_frame import Pages
from lmmpress.trigger.server.secrets import Person
from lmmpress.trigger.server.service import Service, UnknownError
from lmmpress.trigger.server_settings import Role

_WRITERS = 16
"""Deliveries that are written to the store at the same time; the others wait."""
_ROWS = ("text/csv", "application/x-ndjson")
"""The types of rows of production."""
_bearer = HTTPBearer(auto_error=False, description="A token of the settings' `server.tokens`.")


def make_app(service: Service, made_from: MadeFrom | None = None) -> Guard:
    """The whole server as an ASGI application. It starts the threads of `service` and ends them. `made_from` tells the
    page the origin of compressed versions; by default it asks MLflow."""
    settings = service.trigger.settings.server
    return Guard(routes(service, made_from), settings.limits, service.metrics, service.tokens)


def routes(service: Service, made_from: MadeFrom | None = None) -> FastAPI:
    """All routes, without what surrounds every request."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.stop, service.trigger.settings.server.stop_seconds)

    app = FastAPI(
        title="lmmpress trigger",
        summary="Compresses registered models again when they change.",
        version=importlib.metadata.version("lmmpress"),
        docs_url=None,  # pages that load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    app.include_router(_probes(service))
    app.include_router(_webhook(service))
    app.include_router(_api(service))
    asked = made_from or MlflowMadeFrom(service.trigger.settings.tracking)
    app.include_router(page_router(Pages(service, OwnerView(service, asked))))
    for kind, answer in (
        (RefusedError, lambda error: _error(error.status, str(error), error.headers)),
        (UnknownError, lambda error: _error(404, str(error))),
        (RowsError, lambda error: _error(422, "; ".join(error.lines))),
        (NotAllowedError, lambda error: _error(409, "; ".join(error.lines))),
        (UserError, lambda error: _error(503, "; ".join(error.lines), _retry(service))),
        (RequestValidationError, lambda error: _error(422, _first(error))),
        (HTTPException, lambda error: _error(error.status_code, str(error.detail), error.headers)),
        (Exception, lambda error: _error(500, "a fault of the server; its log says more")),
    ):
        app.add_exception_handler(kind, _answering(answer))
    return app


def _answering(answer: Callable[..., Response]) -> Callable[[Request, Exception], Response]:
    def handler(request: Request, error: Exception) -> Response:
        if isinstance(error, UserError) and not isinstance(error, NotAllowedError | RowsError):
            note("request failed", logging.WARNING, error, request=_request_id(request))
        return answer(error)

    return handler


def allowed(role: Role) -> Callable[[Request], Person]:
    """A dependency: the person who asks, if that role is enough; 403 otherwise. The guard has checked the token."""

    def person(request: Request) -> Person:
        found: Person = request.state.person
        if not found.may(role):
            raise RefusedError(403, f"{found.name} is {found.role}; this takes the role {role}")
        return found

    return person


Viewer = Annotated[Person, Depends(allowed("viewer"))]
Operator = Annotated[Person, Depends(allowed("operator"))]
Administrator = Annotated[Person, Depends(allowed("administrator"))]


def _probes(service: Service) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get("/healthz", responses=views.refusals(503), response_model=views.HealthView)
    async def healthz() -> Response:
        """Whether the process works; if not, it is to be started again."""
        return _health([] if service.works else ["a thread has ended"])

    @router.get("/readyz", responses=views.refusals(503), response_model=views.HealthView)
    async def readyz() -> Response:
        """Whether this server should get requests: its threads are there, and the store answers."""
        return _health(await asyncio.to_thread(service.faults))

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return router


def _health(faults: list[str]) -> Response:
    view = views.HealthView(status="failing" if faults else "ok", faults=faults)
    return JSONResponse(view.model_dump(), 503 if faults else 200)


def _webhook(service: Service) -> APIRouter:
    router = APIRouter(tags=["webhook"])
    limits = service.trigger.settings.server.limits
    slots = Slots(limits.deliveries, "deliveries", limits.retry_after)
    service.metrics.noting.set_function(lambda: slots.taken)
    writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="noting")
    count = service.metrics.deliveries

    async def opened(request: Request) -> views.DeliveryView:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise _RefusalError("type", RefusedError(415, "a delivery is application/json"))
        try:
            body = await body_of(request.headers, request.receive, limits.webhook_bytes, limits.body_seconds)
        except RefusedError as error:
            raise _RefusalError("size" if error.status == 413 else "unfinished", error) from None
        found = open_delivery(request.headers, body, service.signing.values(), time.time())
        if isinstance(found, RefusedDelivery):
            raise _RefusalError(found.kind, RefusedError(found.status, found.reason))
        if not service.watches(found):
            count.labels("ignored").inc()
            return views.DeliveryView(delivery=found.id, model=found.model, noted=False)
        try:
            with slots.one():
                noted = await asyncio.get_running_loop().run_in_executor(writers, service.take, found)
        except RefusedError as error:
            raise _RefusalError("too_many", error) from None
        except (UserError, OSError) as error:
            note("delivery not noted", logging.WARNING, error, delivery=found.id)
            raise _RefusalError("store", RefusedError(503, "the store does not answer", _retry(service))) from None
        if not noted:
            raise _RefusalError("other_body", RefusedError(409, "this delivery came before with another body"))
        return views.DeliveryView(delivery=found.id, model=found.model, noted=True)

    @router.post(
        PATH,
        status_code=202,
        response_model=views.DeliveryView,
        responses=views.refusals(400, 401, 403, 408, 409, 413, 415, 429, 503),
        openapi_extra={
            "parameters": [
                {"in": "header", "name": name, "required": True, "schema": {"type": "string"}}
                for name in (ID, TIMESTAMP, SIGNATURE)
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
        },
    )
    async def mlflow(request: Request) -> Response:
        """A delivery of MLflow's registry webhook. It is noted in the store before it is answered, and worked off
        afterwards; a delivery that comes again gets the same answer."""
        try:
            view = await opened(request)
        except _RefusalError as refusal:
            count.labels(f"refused_{refusal.kind}").inc()
            raise refusal.error from None
        return JSONResponse(view.model_dump(), 202)

    return router


class _RefusalError(Exception):
    """Why a delivery is not taken: a word for the metrics, and the answer."""

    def __init__(self, kind: str, error: RefusedError) -> None:
        super().__init__(kind)
        self.kind, self.error = kind, error


def _api(service: Service) -> APIRouter:
    router = APIRouter(prefix="/api/v1", dependencies=[Depends(_bearer)], responses=views.refusals(401, 403, 429, 503))

    @router.get("/models", tags=["models"])
    def models(person: Viewer) -> views.ModelsView:
        """The watched models, each with its newest version, the version in service, and its last claim."""
        return views.ModelsView(models=[service.model(name) for name in service.trigger.settings.models])

    @router.get("/models/{model}", tags=["models"], responses=views.refusals(404))
    def model(model: str, person: Viewer) -> views.ModelView:
        """One watched model."""
        return service.model(model)

    @router.post(
        "/models/{model}/fire", tags=["models"], responses=views.refusals(400, 404, 408, 409, 413), status_code=200
    )
    def fire(request: Request, model: str, person: Operator, asked: views.FireAsked | None = None) -> views.ClaimView:
        """Have the model's version compressed. The claim of a question that was asked before is answered as it is;
        409 where the model's policy allows no run now."""
        asked = asked or views.FireAsked()
        found = service.fire(model, person, asked.why, asked.plan, _request_id(request))
        if isinstance(found, Refused):
            raise NotAllowedError(found.text)
        return views.claim_view(found)

    @router.get("/claims", tags=["claims"], responses=views.refusals(404))
    def claims(person: Viewer, asked: Annotated[views.ClaimsAsked, Query()]) -> views.ClaimsView:
        """Claims, newest first."""
        return views.ClaimsView(
            claims=[views.claim_view(claim) for claim in service.claims(asked.model)[: asked.limit]]
        )

    @router.get("/claims/{key}", tags=["claims"], responses=views.refusals(404))
    def claim(key: str, person: Viewer) -> views.ClaimView:
        """One claim."""
        return views.claim_view(service.claim(key))

    ends = views.refusals(400, 404, 408, 409, 413)

    @router.post("/claims/{key}/cancel", tags=["claims"], responses=ends)
    def cancel(request: Request, key: str, person: Operator, asked: views.ActAsked | None = None) -> views.ClaimView:
        """Cancel a claim and its run; 409 where it has ended."""
        why = asked.why if asked else ""
        return views.claim_view(service.cancel(key, person, why, _request_id(request)))

    @router.post("/claims/{key}/retry", tags=["claims"], responses=ends)
    def retry(request: Request, key: str, person: Operator, asked: views.ActAsked | None = None) -> views.ClaimView:
        """Try a claim again that has failed, was cancelled or was lost; 409 where it has not, or may not now."""
        why = asked.why if asked else ""
        return views.claim_view(service.retry(key, person, why, _request_id(request)))

    _promotion(router, service)

    @router.get("/acts", tags=["audit"])
    def acts(person: Administrator, asked: Annotated[views.ActsAsked, Query()]) -> views.ActsView:
        """Who has done what on a day, in UTC, oldest first."""
        return views.ActsView(acts=service.acts(asked.day))

    return router


def _promotion(router: APIRouter, service: Service) -> None:
    """The routes about what is in service: promotion, comparisons, rows of production."""
    taken = views.refusals(400, 404, 408, 409, 413)

    def shown(model: str) -> views.ServingView:
        now = service.in_service(model)
        alias = service.trigger.settings.models[model].serving
        return views.serving_view(compressed_of(model), alias, now.serving, now.waiting)

    @router.get("/models/{model}/serving", tags=["promotion"], responses=views.refusals(404))
    def serving(model: str, person: Viewer) -> views.ServingView:
        """The version of the compressed model in service, and the promotion that waits for a second person."""
        return shown(model)

    @router.post("/models/{model}/promote", tags=["promotion"], responses=taken)
    def promote(request: Request, model: str, person: Operator, asked: views.PromoteAsked) -> views.ServingView:
        """Put a version of the compressed model into service; what is in service then. 409 with the reasons where the
        rule does not allow it, or another version is there than you have seen."""
        service.promote(model, asked.version, person, asked.why, asked.seen, _request_id(request))
        return shown(model)

    @router.post("/models/{model}/roll-back", tags=["promotion"], responses=taken)
    def roll_back(request: Request, model: str, person: Operator, asked: views.RollBackAsked) -> views.ServingView:
        """Put the version before into service again; what is in service then. 409 where there is none, or another
        version is there than you have seen."""
        service.roll_back(model, person, asked.why, asked.seen, _request_id(request))
        return shown(model)

    @router.get("/models/{model}/comparisons", tags=["promotion"], responses=views.refusals(404))
    def comparisons(model: str, person: Viewer, asked: Annotated[views.ComparisonsAsked, Query()]) -> views.KeptsView:
        """What is kept of the comparisons of a compressed version with its original, the oldest first."""
        found = service.comparisons(model, asked.version)
        return views.KeptsView(comparisons=[views.kept_view(asked.version, one, counts) for one, counts in found])

    @router.post("/models/{model}/comparisons", tags=["promotion"], responses=taken)
    def compare(request: Request, model: str, person: Operator, found: Comparison) -> views.KeptsView:
        """Hand in a comparison.json of `lmmpress compare ORIGINAL COMPRESSED`; all that are kept of that version then.
        The same one again changes nothing. 409 where no registered version is its B, compressed from its A."""
        version, _ = service.take_comparison(model, found, person, _request_id(request))
        kept = service.comparisons(model, version)
        return views.KeptsView(comparisons=[views.kept_view(version, one, counts) for one, counts in kept])

    @router.get("/models/{model}/online", tags=["promotion"], responses=views.refusals(404))
    def online(model: str, person: Viewer) -> views.OnlineView:
        """The accuracy of the original and of the compressed model on each of the last seven days in production."""
        return views.OnlineView.model_validate(service.online(model).told())

    @router.post(
        "/models/{model}/online",
        tags=["promotion"],
        responses=views.refusals(400, 404, 408, 413, 415, 422),
        openapi_extra={
            "requestBody": {"required": True, "content": {kind: {"schema": {"type": "string"}} for kind in _ROWS}}
        },
    )
    async def append(
        request: Request,
        model: str,
        person: Operator,
        idempotency_key: Annotated[str, Header(max_length=200, description="A name of these rows.")] = "",
    ) -> views.AppendedView:
        """Append rows of production, as CSV or JSON lines. Rows that came before under the same Idempotency-Key are not
        counted again; without that header, the same body is not."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _ROWS:
            raise RefusedError(415, f"rows are {' or '.join(_ROWS)}")
        body = await request.body()
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            raise RowsError("rows are written in UTF-8") from None
        batch = idempotency_key or hashlib.sha256(body).hexdigest()
        found = await run_in_threadpool(service.append_rows, model, text, batch, person, _request_id(request))
        days = [day.isoformat() for day in found.days]
        return views.AppendedView(rows=found.rows, days=days, known=found.known)


def _error(status: int, reason: str, headers: object = None) -> Response:
    named = {str(name): str(value) for name, value in dict(headers or {}).items()}  # type: ignore[call-overload]
    return JSONResponse(views.ErrorView(error=reason).model_dump(), status, named)


def _retry(service: Service) -> dict[str, str]:
    return {"retry-after": str(service.trigger.settings.server.limits.retry_after)}


def _first(error: RequestValidationError) -> str:
    """The first fault of a request in one line, without the value that was sent."""
    one = error.errors()[0]
    place = ".".join(str(part) for part in one["loc"])
    return f"{place}: {one['msg']}"


def _request_id(request: Request) -> str:
    return str(request.state.request_id)
