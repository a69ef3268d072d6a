"""The question that a claim answers: which version of a model, on which rows, by which plan, with which pipeline."""

import hashlib
import re
from dataclasses import asdict, dataclass
from functools import lru_cache

from lmmpress.plan import Plan, digest_of

_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Question:
    """What is asked once and answered once.

    `digest` is of the version's checkpoint, because a registry may give a number again to another model. `data` is the
    digest of the rows where the policy watches them, else None. `plan` is the digest of the plan's settings, `pipeline`
    the engine that runs it. `plan_name` is what the settings call the plan; two names of one plan ask one question.
    """

    model: str
    version: str
    digest: str
    data: str | None
    plan: str
    pipeline: str
    plan_name: str

    @property
    def key(self) -> str:
        """The key of the question's claim. It begins with that of the model."""
        return _key(self)

    def run_name(self, attempt: int) -> str:
        """The name of the run that answers the question at this attempt: a DNS label, the same on every machine."""
        slug = _SLUG.sub("-", self.model.lower()).strip("-")[:20].strip("-") or "model"
        version = _SLUG.sub("-", self.version.lower()).strip("-")[:8].strip("-") or "0"
        return f"lmmpress-{slug}-{version}-{self.key[-40:-28]}-{attempt}"


@lru_cache(maxsize=1024)
def _key(question: Question) -> str:
    asked = asdict(question)
    del asked["plan_name"]
    return f"{model_key(question.model)}-{digest_of(asked)[:40]}"


def model_key(model: str) -> str:
    """A short name for a registered model that is safe in addresses and file names."""
    return hashlib.sha256(model.encode()).hexdigest()[:12]


def plan_digest(plan: Plan) -> str:
    """The digest of what a plan asks for: the settings that a run's outcome depends on, and where its rows are. The
    model is left out, since the trigger puts the new version there."""
    return digest_of(plan.key_settings() | {"data": plan.data})
