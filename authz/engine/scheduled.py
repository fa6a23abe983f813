"""Publishes drafts of policies when they are due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog

from authz.domain.drafts import PolicyDraft, Publication
from authz.domain.errors import (
    AuthzError,
    ConflictError,
    FailedPreconditionError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from authz.domain.instants import US_PER_S
from authz.domain.policy_changes import PolicySource
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.drafts import DraftEditor
from authz.engine.polling import poll
from authz.engine.rights import PersonRights
from authz.store.drafts import Drafts

log = structlog.get_logger()

_INTERVAL_S = 1.0
"""How often a process looks whether a draft is due."""
_CLAIM_US = 15 * US_PER_S
"""How long the others leave a draft to the process that publishes it, unless it renews its claim: it may have
been killed."""
_RENEWAL_S = 3.0
_RETRY_US = 10 * US_PER_S
_MAX_ERROR_LENGTH = 4_000
_PASSING = (ConflictError, OverloadedError, UnavailableError)


@dataclass(frozen=True, eq=False, kw_only=True)
class ScheduledPublisher:
    """Publishes each draft that is due, once, however many processes have one of these.

    A process claims a draft first, and renews the claim while it works on the draft. A version is stored only
    if the draft's base is active still, so a claim that runs out meanwhile does not publish twice. The draft
    is proved and tested again, and the person who scheduled it must still have the right. What fails is noted
    in the draft, and logged.
    `permission` is what the caller needs; with `requires_caller` there must be one.
    """

    drafts: Drafts
    draft_editor: DraftEditor
    rights: PersonRights
    gate: ConsistencyGate
    clock: DecisionClock
    permission: str
    requires_caller: bool

    async def run(self) -> None:
        """Publish until cancelled, through every failure."""
        await poll(self.publish_due, interval_s=_INTERVAL_S, work="publication of drafts")

    async def publish_due(self) -> None:
        """Publish every draft that is due and not claimed."""
        while True:
            now = self.clock.at(0)
            draft = await self.gate.run(self.drafts.claim, now, now + _CLAIM_US)
            if draft is None:
                return
            assert draft.publication is not None  # noqa: S101  it is due; narrows the type
            try:
                async with self._claimed(draft):
                    await self._publish(draft, draft.publication)
            except _PASSING as error:
                log.warning(
                    "draft not published yet", draft=draft.id, scope=str(draft.scope), error=error.message
                )
                retry_at = self.clock.at(0) + _RETRY_US
                await self._replace(draft, msgspec.structs.replace(draft, claimed_until=retry_at))
            except AuthzError as error:
                log.warning(
                    "draft not published", draft=draft.id, scope=str(draft.scope), error=error.message
                )
                failed = msgspec.structs.replace(draft.publication, error=error.message[:_MAX_ERROR_LENGTH])
                after = msgspec.structs.replace(draft, claimed_until=None, publication=failed)
                await self._replace(draft, after)

    @asynccontextmanager
    async def _claimed(self, draft: PolicyDraft) -> AsyncIterator[None]:
        """Renew the claim of a draft: its proof may take minutes."""
        renewing = asyncio.create_task(
            poll(partial(self._renew, draft), interval_s=_RENEWAL_S, work="publication of a draft")
        )
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, draft: PolicyDraft) -> None:
        await self.gate.run(self.drafts.renew_claim, draft, self.clock.at(0) + _CLAIM_US)

    async def _publish(self, draft: PolicyDraft, publication: Publication) -> None:
        if await self.draft_editor.delete_published(draft):
            return
        require = partial(self._require_permitted, draft, publication)
        await require()
        published = await self.draft_editor.publish(draft, publication, require)
        assert published.active is not None  # noqa: S101  it was just published; narrows the type
        log.info(
            "draft published", draft=draft.id, scope=str(draft.scope), policy_version=published.active.number
        )

    async def _require_permitted(self, draft: PolicyDraft, publication: Publication) -> None:
        """Raise `PermissionDeniedError` once the caller or the person may not publish the draft any more. A
        proof takes long, so this is asked again before the version is written."""
        if self.requires_caller or publication.caller is not None:
            await self.rights.require_permission(publication.caller, self.permission)
        source = PolicySource(files=draft.files)
        await self.rights.require_publication(publication.person, source, draft.scope)

    async def _replace(self, draft: PolicyDraft, after: PolicyDraft) -> None:
        changed = msgspec.structs.replace(after, etag=draft.etag + 1)
        with suppress(NotFoundError, FailedPreconditionError):  # deleted with its course, or claimed again
            await self.gate.run(self.drafts.replace, changed, etag=draft.etag)
