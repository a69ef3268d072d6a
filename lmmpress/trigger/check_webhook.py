"""Checks MLflow's webhook: does one lead to the trigger's server, and does MLflow sign what the server takes?

Nobody can ask MLflow for the secret that it signs with. So it is told to deliver a test, which the server answers as
any other delivery: only a right signature and a right time get its 202. The test is about an example of MLflow's own,
so nothing follows from it.
"""

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lmmpress.doctor.finding import Finding, ok, unknown, warning
from lmmpress.errors import UserError
from lmmpress.printing.credentials import address_without_credentials
from lmmpress.tracking.client import explained, open_client
from lmmpress.trigger.server.deliveries import EVENTS, PATH

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.webhook import Webhook

_NAME = "webhook"
_REGISTER = "register it as docs/trigger-server.md says, for model_version.created and model_version_alias.created"
_TAKEN, _UNSIGNED, _WITHOUT_SECRET = 202, 401, 403
"""What the server answers to a delivery that it takes, that is not signed rightly, and where it has no secret."""


def check_webhooks(tracking: str) -> list[Finding]:
    """Check every webhook whose address is that of a trigger. Nothing is left behind."""
    try:
        client = open_client(tracking)
        with explained(tracking):
            hooks = [hook for hook in client.list_webhooks() if urlsplit(hook.url).path.endswith(PATH)]
    except UserError as error:
        mend = "if MLflow's key for them is another than before, it can read none: docs/operate.md#incidents"
        return [unknown(_NAME, f"MLflow did not say which webhooks it has: {error.lines[0]}", mend)]
    if not hooks:
        return [warning(_NAME, f"MLflow has no webhook that leads to {PATH}", _REGISTER)]
    return [_of(client, tracking, hook) for hook in hooks]


def _of(client: "MlflowClient", tracking: str, hook: "Webhook") -> Finding:
    lacking = EVENTS - {(event.entity.value, event.action.value) for event in hook.events}
    where = address_without_credentials(hook.url)
    if not hook.status.is_active():
        return warning(_NAME, f"the webhook to {where} is not active", "update_webhook(status='ACTIVE')")
    if lacking:
        events = " and ".join(sorted(".".join(one) for one in lacking))
        return warning(_NAME, f"the webhook to {where} is not told of {events}", _REGISTER)
    return _delivered(client, tracking, hook, where)


def _delivered(client: "MlflowClient", tracking: str, hook: "Webhook", where: str) -> Finding:
    """Have MLflow deliver a test, and read what the trigger's server has answered."""
    try:
        with explained(tracking):
            test = client.test_webhook(hook.webhook_id)
    except UserError as error:
        said = f"MLflow could not deliver a test to {where}: {error.lines[0]}"
        return unknown(
            _NAME, said, "with another encryption key than before MLflow delivers nothing: docs/operate.md#incidents"
        )
    status, why = test.response_status, _reason(test.response_body)
    if status == _TAKEN:
        return ok(_NAME, f"MLflow delivers to {where}, which takes its signature")
    if status is None:
        said = f"MLflow's test did not arrive at {where}: {test.error_message or 'no reason given'}"
        return unknown(_NAME, said, "is the trigger's server up, and can MLflow reach this address? then check again")
    if status == _UNSIGNED:
        mend = f"give MLflow the server's secret: MlflowClient().update_webhook('{hook.webhook_id}', secret=...)"
        return warning(_NAME, f"the trigger at {where} does not take what MLflow signs: {why}", mend)
    if status == _WITHOUT_SECRET:
        said = f"the trigger at {where} has read no webhook secret: {why}"
        return warning(_NAME, said, "restart it with these settings")
    mend = "does the address lead to the trigger, and through every proxy? its log has the request"
    return warning(_NAME, f"{where} answers MLflow's test with HTTP {status}: {why}", mend)


def _reason(body: str | None) -> str:
    """What the server says in an error; of another server's page nothing but its beginning."""
    try:
        said = json.loads(body or "")["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = (body or "")[:80]
    return str(said) or "without a reason"
