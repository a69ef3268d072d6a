"""The settings of the trigger: one YAML file, and variables of the environment that replace single values of it.

    LMMPRESS_TRIGGER_SETTINGS       the file, where none is given
    LMMPRESS_TRIGGER__STORE         replaces `store`; LMMPRESS_TRIGGER__SERVER__PORT replaces `server.port`

Unknown keys are refused with the nearest known one, in the file and in the environment. No secret is a setting: tokens
and secrets are in files that the settings name, or in variables of the environment that they name.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from lmmpress.errors import UserError
from lmmpress.printing.credentials import address_holds_credentials, address_without_credentials
from lmmpress.settings.faults import faults_of, lines_of, nearest, without_followers
from lmmpress.settings.plain_yaml import Document, Place, read_document
from lmmpress.tasks.granularity import Choice
from lmmpress.trigger.notice_settings import NoticeSettings
from lmmpress.trigger.promotion_settings import DriftSettings, PromotionSettings
from lmmpress.trigger.server_settings import ServerSettings

FILE = "LMMPRESS_TRIGGER_SETTINGS"
PREFIX = "LMMPRESS_TRIGGER__"
_PATHS = ("plan", "cluster")
_SECRETS = (
    ("server", "tokens"),
    ("server", "webhook_secrets"),
    ("server", "page", "session_secret"),
    ("server", "page", "oidc", "client_secret"),
    ("notices", "addresses"),
)
"""Where the file says from where secrets are read."""


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"there is no time zone {name!r}; write it as Asia/Shanghai or UTC") from None
    return name


def _cron(text: str) -> str:
    try:
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise ValueError(f"is no time of cron's: {text!r}; 22:00 on every day is 0 22 * * *") from None
    return text


def _without_secrets(login: str) -> Callable[[str], str]:
    def check(address: str) -> str:
        if address_holds_credentials(address):
            raise ValueError(
                f"holds credentials: write {address_without_credentials(address)}, and give them in the environment "
                f"({login})"
            )
        return address

    return check


Zone = Annotated[str, AfterValidator(_zone)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class EngineName(StrEnum):
    """What runs a plan: Kubeflow Pipelines, Argo Workflows, or a process of the trigger's own machine."""

    kubeflow = "kubeflow"
    argo = "argo"
    local = "local"


class AllowedPlan(_Settings):
    """A plan that may be used for a model, as an administrator has chosen it. `cluster` is the cluster profile, which
    the engines kubeflow and argo need."""

    plan: str
    cluster: str | None = None
    engine: EngineName = EngineName.kubeflow
    granularity: Choice = Choice.auto

    @model_validator(mode="after")
    def _has_a_cluster(self) -> "AllowedPlan":
        if self.engine is not EngineName.local and self.cluster is None:
            raise ValueError(f"engine {self.engine} needs cluster, the file of the cluster profile")
        return self


class Start(StrEnum):
    """When the trigger starts a run by itself."""

    every_release = "every-release"
    by_hand = "by-hand"
    window = "window"


class Window(_Settings):
    """The time in which the trigger starts runs by itself: it opens as cron says in `opens`, for so many `hours`."""

    opens: Annotated[str, AfterValidator(_cron)]
    hours: Annotated[float, Field(gt=0, le=168)]
    zone: Zone = "UTC"


class Policy(_Settings):
    """When a run may start.

    `start` is about runs that the trigger starts by itself. `most_a_day` is the largest number of runs that begin on
    one day of `zone`; it binds people too. With `data: watch`, new rows are a reason for a run, as a new version is.
    """

    start: Start = Start.every_release
    window: Window | None = None
    most_a_day: Annotated[int, Field(ge=1)] | None = None
    zone: Zone = "UTC"
    data: Literal["ignore", "watch"] = "ignore"

    @model_validator(mode="after")
    def _has_a_window(self) -> "Policy":
        if (self.start is Start.window) != (self.window is not None):
            raise ValueError("start: window and the section window belong together")
        return self


class WatchedModel(_Settings):
    """A registered model that the trigger watches: the version that `alias` names, or with `newest` the newest one.

    `serving` is the alias of the version in service, among those of the compressed model. `plans` are the plans that
    may be used for it, by name. `default` is the one that is used where nobody names one; without it, the first.
    """

    alias: Name = "release"
    newest: bool = False
    serving: Name = "serving"
    plans: Annotated[dict[Name, AllowedPlan], Field(min_length=1)]
    default: Name | None = None
    policy: Policy = Policy()
    promotion: PromotionSettings = PromotionSettings()
    drift: DriftSettings = DriftSettings()

    @model_validator(mode="after")
    def _is_consistent(self) -> "WatchedModel":
        if self.newest and "alias" in self.model_fields_set:
            raise ValueError("alias and newest exclude each other")
        if self.default is not None and self.default not in self.plans:
            raise ValueError(f"default: there is no plan {self.default!r}; {nearest(self.default, list(self.plans))}")
        return self

    @property
    def default_plan(self) -> str:
        """The name of the plan that is used where nobody names one."""
        return self.default or next(iter(self.plans))


class TriggerSettings(BaseSettings):
    """The settings of the trigger. docs/trigger.md says where every key is described.

    `store` is where claims are, `tracking` the address of MLflow. `runs` is the folder of the runs of engine local.
    `context` is the context of the kubeconfig, if not its current one.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    store: Annotated[str, AfterValidator(_without_secrets("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"))]
    tracking: Annotated[str, AfterValidator(_without_secrets("MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD"))]
    models: Annotated[dict[Name, WatchedModel], Field(min_length=1)]
    runs: str = "runs"
    context: str | None = None
    server: ServerSettings = ServerSettings()
    notices: NoticeSettings = NoticeSettings()

    @property
    def secret_variables(self) -> frozenset[str]:
        """The variables of the environment that hold tokens, secrets and addresses of notices."""
        server, page = self.server, self.server.page
        of_page = (page.session_secret, page.oidc.client_secret if page.oidc else None)
        secrets = [*server.tokens, *server.webhook_secrets, *self.notices.addresses, *of_page]
        return frozenset(one.env for one in secrets if one is not None and one.env is not None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before the file; no file of the current directory is read."""
        return env_settings, init_settings

    def watched(self, model: str) -> WatchedModel:
        """The settings of a model; UserError with the nearest name if it is not watched."""
        if model not in self.models:
            raise UserError(f"model {model!r} is not watched; {nearest(model, list(self.models))}")
        return self.models[model]

    def allowed(self, model: str, plan: str | None = None) -> tuple[str, AllowedPlan]:
        """A plan of a model with its name, else the default one; UserError with the nearest name if there is none."""
        watched = self.watched(model)
        name = plan or watched.default_plan
        if name not in watched.plans:
            raise UserError(f"model {model!r} has no plan {name!r}; {nearest(name, list(watched.plans))}")
        return name, watched.plans[name]


def read_settings(path: Path | str | None = None) -> TriggerSettings:
    """The settings in a file, or in the one that LMMPRESS_TRIGGER_SETTINGS names, and in the environment.

    Relative paths in the file are taken from its own folder. Raises UserError, with a line for each fault, if a setting
    is unknown, missing or out of its range.
    """
    named = path or os.environ.get(FILE, "").strip()
    if not named:
        raise UserError(f"where are the trigger's settings? give --settings TRIGGER.yaml, or set {FILE}")
    file = Path(named)
    document = read_document(file, "trigger settings")
    _resolve(document.value, file.parent)
    _refuse_unknown_variables()
    found: dict[Place, str] = {}
    settings = None
    try:
        settings = TriggerSettings(**document.value)
    except ValidationError as error:
        found = {place: _without_value(place, fault) for place, fault in faults_of(error, TriggerSettings).items()}
    except Exception as error:  # pydantic-settings wraps what it cannot read in the environment
        raise UserError(f"{PREFIX}...: {str(error).splitlines()[0]}: {error.__cause__ or 'no such value'}") from None
    if faults := without_followers(document.faults, found):
        raise UserError(*_lines(faults, file, document))
    assert settings is not None
    return settings


def _without_value(place: Place, fault: str) -> str:
    """A fault without the value, where somebody may have written a secret instead of where it is read from."""
    return fault.partition(", got ")[0] if any(place[: len(one)] == one for one in _SECRETS) else fault


def _lines(faults: dict[Place, str], file: Path, document: Document) -> list[str]:
    """A line for each fault. It names the variable of the environment, if the value comes from there."""
    variables = {name.upper() for name in os.environ if name.upper().startswith(PREFIX)}
    lines: list[str] = []
    in_file: dict[Place, str] = {}
    for place, fault in faults.items():
        variable = PREFIX + "__".join(place).upper()
        if variable in variables:
            lines.append(f"{variable}: {fault}")
        else:
            in_file[place] = fault
    return lines + lines_of(in_file, str(file), document.lines)


def _refuse_unknown_variables() -> None:
    """pydantic-settings ignores variables whose first key it does not know."""
    known = list(TriggerSettings.model_fields)
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX):
            key = name[len(PREFIX) :].lower().partition("__")[0]
            if key not in known:
                raise UserError(f"{name}: unknown key {key}; {nearest(key, known)}")


def _resolve(raw: dict[str, Any], folder: Path) -> None:
    """Make the paths of a raw file absolute, in place. Links stay: Kubernetes changes mounted files by moving a link to
    another folder, and removes the one before."""

    def resolved(value: Any) -> Any:
        return os.path.abspath(folder / value) if isinstance(value, str) and value and _is_path(value) else value

    for key in ("store", "runs"):
        if key in raw:
            raw[key] = resolved(raw[key])
    raw.setdefault("runs", os.path.abspath(folder / "runs"))
    for place in _SECRETS:
        found: Any = raw
        for key in place:
            found = found.get(key) if isinstance(found, dict) else None
        for secret in found if isinstance(found, list) else [found]:
            if isinstance(secret, dict) and "file" in secret:
                secret["file"] = resolved(secret["file"])
    models = raw.get("models")
    for model in models.values() if isinstance(models, dict) else ():
        plans = model.get("plans") if isinstance(model, dict) else None
        for plan in plans.values() if isinstance(plans, dict) else ():
            for key in _PATHS:
                if isinstance(plan, dict) and key in plan:
                    plan[key] = resolved(plan[key])


def _is_path(address: str) -> bool:
    return ":/" not in address and "@" not in address
