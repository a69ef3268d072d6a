"""What the trigger needs before it can work, checked: `lmmpress trigger check`. Findings have the doctor's form."""

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from lmmpress import api
from lmmpress.doctor.finding import Finding, failed, ok, unknown, warning
from lmmpress.errors import UserError
from lmmpress.host.extras import is_installed
from lmmpress.printing.one_line import printable
from lmmpress.store.kinds import HINTS
from lmmpress.store.objects import ChangedError, Objects
from lmmpress.tracking.client import explained, open_client, time_of
from lmmpress.trigger.check_webhook import check_webhooks
from lmmpress.trigger.registry import Release
from lmmpress.trigger.server.issuer import IssuerError
from lmmpress.trigger.server.secrets import ClientSecret, SigningSecrets, Tokens
from lmmpress.trigger.server.sign_in import open_id
from lmmpress.trigger.server_settings import Page
from lmmpress.trigger.settings import EngineName, TriggerSettings, read_settings
from lmmpress.trigger.trigger import Trigger, open_trigger, plan_in, profile_in

SKEW = 30.0
"""How many seconds this machine's clock may differ from the store's and MLflow's."""
_TRACKING = "MLFLOW_TRACKING_URI"

Tell = Callable[[str], None]


def check_file(file: Path | None, tell: Tell = lambda name: None) -> list[Finding]:
    """All findings about the trigger of a file of settings, else of the one that LMMPRESS_TRIGGER_SETTINGS names.
    Settings that cannot be read are findings, too."""
    try:
        settings = read_settings(file)
        trigger = open_trigger(settings)
    except UserError as error:
        return [failed("settings", line, "see docs/trigger.md") for line in error.lines]
    return [ok("settings", f"watched: {', '.join(settings.models)}"), *check(trigger, tell)]


def check(trigger: Trigger, tell: Tell = lambda name: None) -> list[Finding]:
    """All findings about the trigger; `tell` gets the name of each check before it runs. Nothing is left behind, except
    the store where that is a folder that was not there."""
    found: list[Finding] = []
    for name, run in _checks(trigger):
        tell(name)
        try:
            found += run()
        except Exception as error:  # an unexpected answer to one check must not stop the other checks
            found.append(unknown(name, f"unexpected answer ({type(error).__name__}: {error})"))
    return found


def _checks(trigger: Trigger) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    yield "store", lambda: check_store(trigger.objects)
    yield "clock", lambda: check_clock(trigger.objects, trigger.settings.tracking, time.time)
    yield "MLflow", lambda: check_mlflow(trigger.settings.tracking)
    yield "server", lambda: check_server(trigger.settings)
    if trigger.settings.server.page.oidc is not None:
        yield "issuer", lambda: check_issuer(trigger.settings.server.page)
    for model in trigger.settings.models:
        yield f"model {model}", lambda model=model: check_model(trigger, model)  # type: ignore[misc]


def check_store(objects: Objects) -> list[Finding]:
    """Check that the store refuses a write whose condition does not hold: claims rest on that.

    The probe is among the hints, where a killed check, or keys that may not delete, do no harm: what is no hint is left
    out there, and removed after a while. Among the claims it would be a record that nobody can read.
    """
    name, probe = "store", HINTS.name(f"probe-{uuid.uuid4().hex}")
    try:
        objects.write(probe, b"{}", None)
        found = objects.read(probe)
        refused = [_is_refused(objects, probe, tag) for tag in (None, "0" * 32)]
        objects.write(probe, b'{"a": 1}', found.tag if found else None)
        objects.delete(probe)
    except (UserError, ChangedError, OSError) as error:
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return [failed(name, said, "give a directory that can be written, or keys that may read, write and delete")]
    if not all(refused):
        mend = "take a store that knows If-Match and If-None-Match (docs/store.md names some)"
        return [failed(name, f"{objects.address} overwrites what another process has written", mend)]
    return [ok(name, f"{objects.address} writes on condition")]


def check_clock(objects: Objects, tracking: str, clock: Callable[[], float]) -> list[Finding]:
    """Check this machine's clock against those of the store and of MLflow: deliveries are refused by their age."""
    others: dict[str, Callable[[], float | None]] = {"the store": objects.now, "MLflow": lambda: time_of(tracking)}
    found = [_ahead(other, read, clock) for other, read in others.items()]
    return [one for one in found if one is not None]


def _ahead(other: str, read: Callable[[], float | None], clock: Callable[[], float]) -> Finding | None:
    before = clock()
    try:
        theirs = read()
    except (UserError, OSError) as error:
        return unknown("clock", f"the clock of {other} could not be read: {error}")
    if theirs is None:  # there is no server, so no other clock
        return None
    # it was read at some moment between the two times of ours: an answer that takes long is no wrong clock
    ahead = max(before - theirs, 0.0) + min(clock() - theirs, 0.0)
    if abs(ahead) > SKEW:
        said = f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {other}"
        mend = "synchronise both (timedatectl, chrony): signed deliveries are refused by their age"
        return warning("clock", said, mend)
    return ok("clock", f"this machine and {other} agree to {abs(ahead):.0f} s")


def check_mlflow(tracking: str) -> list[Finding]:
    """Check that MLflow's registry answers."""
    try:
        client = open_client(tracking)
        with explained(tracking):
            client.search_registered_models(max_results=1)
    except UserError as error:
        mend = "is the server up, and `tracking` its address? MLFLOW_TRACKING_USERNAME and _PASSWORD log in"
        return [failed("MLflow", str(error), mend)]
    return [ok("MLflow", f"the registry at {tracking} answers")]


def check_server(settings: TriggerSettings) -> list[Finding]:
    """Check what the server needs: its tokens and secrets, and a webhook of MLflow's that leads to it, signed by one of
    these secrets."""
    name, server = "server", settings.server
    emptied: list[str] = []
    try:
        tokens = Tokens(server.tokens, emptied.append)
        SigningSecrets(server.webhook_secrets)
    except UserError as error:
        return [failed(name, error.lines[0], "see docs/trigger-server.md")]
    found = [warning(name, said, "write a new token into it, or take it out of the settings") for said in emptied]
    found += [
        ok(name, f"{len(tokens) - len(emptied)} tokens and {len(server.webhook_secrets)} webhook secrets can be read")
    ]
    if not server.webhook_secrets:
        said = "no webhook secret is set: MLflow's deliveries are not taken, and the reconciler finds new versions"
        return [*found, ok("webhook", said)]
    return found + check_webhooks(settings.tracking)


def check_issuer(page: Page) -> list[Finding]:
    """Check that the issuer of the page's sign-in answers, and is the one of the settings. Whether it takes the client
    and its secret only a person can try who signs in."""
    name, oidc = "issuer", page.oidc
    assert oidc is not None
    try:
        secret = ClientSecret(oidc.client_secret)
    except UserError as error:
        return [failed(name, error.lines[0], "it is the secret of the client that the issuer knows")]
    issuer = open_id(page, secret).issuer
    try:
        document = issuer.document()
        keys = len(issuer.keys().keys)
    except IssuerError as error:
        mend = "server.page.oidc.issuer is the issuer's address exactly as it names itself; can this machine reach it?"
        return [failed(name, error.lines[0], mend)]
    found = [ok(name, f"{oidc.issuer} answers; {keys} of its keys can check signatures")]
    if lacking := [scope for scope in oidc.scopes if document.scopes and scope not in document.scopes]:
        said = f"{oidc.issuer} does not list the scope {' and '.join(lacking)}"
        found.append(warning(name, said, f"it lists {printable(' '.join(document.scopes), 200)}"))
    return found


def check_model(trigger: Trigger, model: str) -> list[Finding]:
    """Check that a watched model has the version that is watched, and each of its plans with that version."""
    watched, name = trigger.settings.models[model], f"model {model}"
    release: Release | None = None
    try:
        release = trigger.release(model)
    except UserError as error:
        mend = (
            "register a version of the model"
            if watched.newest
            else f"set the alias: MlflowClient().set_registered_model_alias({model!r}, {watched.alias!r}, VERSION)"
        )
        found = [failed(name, str(error), mend)]
    else:
        which = "the newest" if watched.newest else f"alias {watched.alias}"
        found = [ok(name, f"version {release.version} ({which}), digest {release.digest[:12]}, at {release.address}")]
    for plan in watched.plans:
        found += check_plan(trigger, model, plan, release)
    return found


def check_plan(trigger: Trigger, model: str, plan: str, release: Release | None) -> list[Finding]:
    """Check a plan of a model: the file, its steps for the version's shape, its rows, its cluster, and its engine."""
    name, allowed = f"plan {plan} of {model}", trigger.settings.models[model].plans[plan]
    found: list[Finding] = []
    try:
        asked = plan_in(allowed.plan)
    except UserError as error:
        return [failed(name, error.lines[0], f"correct {allowed.plan}")]
    if release is None:
        found.append(unknown(name, "not tried on a version, because there is none"))
    elif not is_installed("torch"):  # as in the image of the trigger
        said = f"not held against the shape of version {release.version}, which needs torch: `lmmpress plan` does that"
        found.append(unknown(name, said))
    else:
        try:
            sizes = api.plan_sizes(asked.model_copy(update={"model": release.address}))
            found.append(ok(name, f"valid for version {release.version}: {len(sizes) - 1} steps at most"))
        except UserError as error:
            mend = "change its stages, or leave this plan out of the model's plans"
            found.append(failed(name, f"not valid for version {release.version}: {error.lines[0]}", mend))
    if trigger.settings.models[model].policy.data == "watch":
        found.append(_rows(trigger, name, asked.data))
    if allowed.cluster is not None:
        profile = _profile(name, allowed.cluster)
        found += profile
        if any(one.status == "failed" for one in profile):
            return found
    return found + ([_engine(trigger, model, plan, allowed.engine)] if release else [])


def _rows(trigger: Trigger, name: str, data: str) -> Finding:
    try:
        return ok(name, f"the rows of {data} have the digest {trigger.registry.data_digest(data)[:12]}")
    except UserError as error:
        return failed(name, error.lines[0], "with data: watch the trigger has to read the rows too")


def _profile(name: str, file: str) -> list[Finding]:
    try:
        profile = profile_in(file)
    except UserError as error:
        return [failed(name, error.lines[0], f"correct {file}")]
    found = [warning(name, line, f"see {file}") for line in profile.warnings()]
    if _TRACKING not in profile.environment and not profile.secrets.mlflow:
        said = f"pods get no {_TRACKING}, by which they find the version that they compress"
        found.append(warning(name, said, f"environment: {{{_TRACKING}: http://...}} in {file}"))
    return found or [ok(name, f"cluster profile {file}")]


def _engine(trigger: Trigger, model: str, plan: str, engine: EngineName) -> Finding:
    name = f"engine {engine}"
    try:
        question = trigger.question(model, plan)
        return ok(name, trigger.engine(question).reach(trigger.order(question)))
    except UserError as error:
        mend = {
            EngineName.kubeflow: "lmmpress doctor --cluster says more; a token comes from KFP_TOKEN or KFP_TOKEN_FILE",
            EngineName.argo: "lmmpress doctor --cluster says more; the cluster is that of the kubeconfig",
            EngineName.local: "set `runs` to a folder that can be written",
        }
        return failed(name, error.lines[0], mend[engine])


def _is_refused(objects: Objects, name: str, tag: str | None) -> bool:
    """Whether a write is refused whose bytes are not those that are there: a store may take equal ones for its own."""
    try:
        objects.write(name, b'{"b": 1}', tag)
    except ChangedError:
        return True
    return False
