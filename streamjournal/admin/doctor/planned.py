"""What `init` would change, as a warning: its plans, without their second half."""

from __future__ import annotations

from streamjournal.admin.doctor.aws import is_denied
from streamjournal.admin.doctor.check import Check, Checks, ok, skipped, warning
from streamjournal.admin.init.plan import Plan, Planned
from streamjournal.admin.init.s3 import ASPECTS, BucketPlan
from streamjournal.core.errors import NotConfiguredError
from streamjournal.core.settings import Settings

_INIT = "`streamjournal init` sets it so; `--dry-run` shows all that it would do"


async def check_planned(checks: Checks, name: str, plan: Plan, action: str) -> None:
    """Compare a resource with what `init` makes.

    Args:
        action: the IAM action without which it cannot be seen.
    """

    async def look() -> Check:
        try:
            planned = await plan.plan()
        except NotConfiguredError as problem:
            if is_denied(problem.__cause__):
                return _unseen(name, action)
            raise
        return _compared(name, planned)

    try:
        await checks.run(name, look)
    finally:
        await plan.aclose()


async def check_aspects(checks: Checks, settings: Settings) -> None:
    """Compare the bucket's configuration with what `init` makes, part by part."""
    plan = BucketPlan(settings, archive_versions_after=None)

    async def look(aspect: str) -> Check:
        name = f"bucket {aspect}"
        try:
            return _compared(name, [await plan.plan_aspect(aspect)])
        except NotConfiguredError as problem:
            if is_denied(problem.__cause__):
                return _unseen(name, ASPECTS[aspect])
            raise

    try:
        for aspect in ASPECTS:
            await checks.run(f"bucket {aspect}", lambda aspect=aspect: look(aspect))  # type: ignore[misc]
    finally:
        await plan.aclose()


def _compared(name: str, planned: list[Planned]) -> Check:
    wrong = [step.detail for step, apply in planned if apply is not None]
    if wrong:
        return warning(name, f"not as init sets it: {'; '.join(wrong)}", _INIT)
    return ok(name, ", ".join(step.detail for step, _ in planned))


def _unseen(name: str, action: str) -> Check:
    """Only `init` and the doctor need to see it."""
    return skipped(name, f"may not be seen: {action} is not allowed")
