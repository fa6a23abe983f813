"""Makes, edits and publishes drafts of the platform's policy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from authz.domain.drafts import Drafts, Edit, PolicyDraft, Publication
from authz.domain.errors import (
    ConflictError,
    ErrorReason,
    FailedPreconditionError,
    PolicyError,
    PolicyFault,
    malformed,
)
from authz.domain.files import files_digest, files_text, read_files, require_files
from authz.domain.instants import format_instant
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.publish import Origin, Published, Publisher
from authz.policy.edit import edit_files, rebase_files
from authz.policy.versions import compile_files

_FIRST_ETAG = 1


class Drafting:
    """The calls about drafts. Every wait is in the pool."""

    def __init__(
        self, drafts: Drafts, publisher: Publisher, gate: ConsistencyGate, clock: DecisionClock
    ) -> None:
        self._drafts = drafts
        self._publisher = publisher
        self._gate = gate
        self._clock = clock

    async def create(self, draft_id: str, number: int, *, author: str) -> PolicyDraft:
        """A draft with the files of a version, the active one for 0. Raises as `Drafts.create`, and
        `NotFoundError` for a number that no version has."""
        base = await self._publisher.read(number)
        now = self._clock.at(base.read_at.committed_at)
        draft = PolicyDraft(
            id=draft_id,
            etag=_FIRST_ETAG,
            base_number=base.version.number,
            files=base.version.files,
            author=author,
            created_at=now,
            edited_at=now,
        )
        await self._gate.run(partial(self._drafts.create, draft))
        return draft

    async def list(self) -> tuple[PolicyDraft, ...]:
        """All drafts without files, ordered by id."""
        return await self._gate.run(self._drafts.list)

    async def read(self, draft_id: str) -> PolicyDraft:
        """Raises `NotFoundError`."""
        return await self._gate.run(partial(self._drafts.read, draft_id))

    async def edit(
        self, draft_id: str, etag: int, edits: Sequence[Edit], *, rebase: bool
    ) -> tuple[PolicyDraft, tuple[PolicyFault, ...]]:
        """The draft after the edits, and the faults of its rows. With `rebase` it is first moved onto the
        active version. Raises as `edit_files`, `rebase_files` and `Drafts.replace`."""
        draft = await self._free(draft_id, etag)
        if draft.publish_at is not None:
            raise FailedPreconditionError(
                ErrorReason.PRECONDITION_FAILED,
                f"draft `{draft_id}` is to be published at {format_instant(draft.publish_at)}; cancel that"
                " first (`authz policy draft cancel`)",
                key=draft_id,
            )
        active = await self._publisher.read(0)
        if rebase and active.version.number != draft.base_number:
            base = (await self._publisher.read(draft.base_number)).version
            sides = (read_files(each.files) for each in (base, draft, active.version))
            files = files_text(await self._gate.run(partial(rebase_files, *sides)))
            draft = msgspec.structs.replace(draft, files=files, base_number=active.version.number)
        edited = await self._gate.run(partial(edit_files, read_files(draft.files), edits))
        require_files(edited, field="edits")
        now = self._clock.at(active.read_at.committed_at)
        draft = msgspec.structs.replace(
            draft, files=files_text(edited), etag=etag + 1, edited_at=now, publication=None
        )
        await self._gate.run(partial(self._drafts.replace, draft, etag=etag))
        return draft, await self._gate.run(partial(_faults_of, edited))

    async def publish(self, draft_id: str, etag: int, origin: Origin) -> Published:
        """Make the draft the next version, as `Publisher.apply` does, and delete it unless it is equal to the
        active one."""
        return await self.publish_claimed(await self._free(draft_id, etag), origin)

    async def publish_claimed(self, draft: PolicyDraft, origin: Origin) -> Published:
        """As `publish`, for who has claimed the draft."""
        published = await self._apply(draft, origin, validate_only=False)
        if published.changed:
            await self._gate.run(partial(self._drafts.delete, draft.id, etag=draft.etag))
        return published

    async def delete_published(self, draft: PolicyDraft) -> bool:
        """Delete a claimed draft whose files are active: it was published by a process that ended before it
        could delete the draft."""
        is_active = (await self._publisher.read(0)).version.digest == files_digest(draft.files)
        if is_active:
            await self._gate.run(partial(self._drafts.delete, draft.id, etag=draft.etag))
        return is_active

    async def schedule(
        self, draft_id: str, etag: int, publication: Publication
    ) -> tuple[PolicyDraft, Published]:
        """Have the draft published at a time, if it could be published now. Returns it, and what its tests
        and warnings are now."""
        draft = await self._free(draft_id, etag)
        if publication.at <= self._clock.at(0):
            raise malformed("publish_at", "is in the past; name a later time, or publish the draft now")
        origin = Origin(author=publication.author, reason=publication.reason, actor=publication.actor)
        found = await self._apply(draft, origin, validate_only=True)
        if not found.changed:
            raise FailedPreconditionError(
                ErrorReason.PRECONDITION_FAILED,
                f"draft `{draft_id}` is equal to the active version, so there is nothing to publish; edit it",
                key=draft_id,
            )
        return await self._with_publication(draft, publication), found

    async def cancel(self, draft_id: str, etag: int) -> PolicyDraft:
        """Have the draft published at no time; it stays a draft."""
        return await self._with_publication(await self._free(draft_id, etag), None)

    async def _with_publication(self, draft: PolicyDraft, publication: Publication | None) -> PolicyDraft:
        changed = msgspec.structs.replace(draft, etag=draft.etag + 1, publication=publication)
        await self._gate.run(partial(self._drafts.replace, changed, etag=draft.etag))
        return changed

    async def _apply(self, draft: PolicyDraft, origin: Origin, *, validate_only: bool) -> Published:
        try:
            return await self._publisher.apply(
                draft.files, origin, expected=draft.base_number, validate_only=validate_only
            )
        except FailedPreconditionError as error:
            if error.reason is ErrorReason.PRECONDITION_FAILED:
                error.append(f"; to do so, rebase the draft `{draft.id}`, and look at its diff")
            raise

    async def delete(self, draft_id: str, etag: int) -> None:
        """Raises as `Drafts.delete`."""
        await self._free(draft_id, etag)
        await self._gate.run(partial(self._drafts.delete, draft_id, etag=etag))

    async def _free(self, draft_id: str, etag: int) -> PolicyDraft:
        """The draft, if it has this etag, and no server is publishing it."""
        draft = await self.read(draft_id)
        if draft.etag != etag:
            raise draft.stale()
        if draft.claimed_until is not None and draft.claimed_until > self._clock.at(0):
            raise ConflictError(
                ErrorReason.WRITE_CONFLICT,
                f"draft `{draft_id}` is being published now; look at the versions in a minute",
            )
        return draft


def _faults_of(files: dict[str, str]) -> tuple[PolicyFault, ...]:
    try:
        compile_files(files)
    except PolicyError as error:
        return error.faults
    return ()
