"""Makes, edits and publishes drafts of the policies of the platform and of courses."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from authz.domain.drafts import Authorship, DraftKey, Edit, PolicyDraft, Publication, of_course
from authz.domain.errors import (
    ConflictError,
    ErrorReason,
    FailedPreconditionError,
    NotFoundError,
    PolicyError,
    PolicyFault,
    malformed,
    precondition_failed,
)
from authz.domain.files import files_text, read_files, require_files, same_files
from authz.domain.ids import PLATFORM, Scope
from authz.domain.instants import format_instant
from authz.domain.tokens import ConsistencyToken
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import RequirePermitted
from authz.engine.publish import Published, Publisher
from authz.policy.course import course_files, load_course_policy
from authz.policy.edit import Course, edit_files, rebase_files, with_lines
from authz.policy.versions import load_files
from authz.store.drafts import Drafts

_FIRST_ETAG = 1


@dataclass(frozen=True, eq=False)
class DraftEditor:
    """The calls about drafts. Every wait is in the pool."""

    drafts: Drafts
    publisher: Publisher
    gate: ConsistencyGate
    clock: DecisionClock

    async def create(self, key: DraftKey, number: int, *, author: str) -> PolicyDraft:
        """A draft with the files of a version, the active one for 0; without rules, if a course has none.

        Raises as `Drafts.create`, and `NotFoundError` for a number that no version has.
        """
        base_number, files, read_at = await self.base(number, key.scope)
        now = self.clock.at(read_at.committed_at)
        draft = PolicyDraft(
            id=key.id,
            scope=key.scope,
            etag=_FIRST_ETAG,
            base_number=base_number,
            files=files,
            author=author,
            created_at=now,
            edited_at=now,
        )
        await self.gate.run(self.drafts.create, draft)
        return draft

    async def base(self, number: int, scope: Scope) -> tuple[int, str, ConsistencyToken]:
        """A version, the active one for 0: its number, its files, and when it was read. For a course without
        one, the number 0 and a file without rules. Raises as `Publisher.read`."""
        try:
            found = await self.publisher.read(number, scope)
        except NotFoundError:
            if number or scope == PLATFORM:
                raise
            return 0, course_files(""), (await self.publisher.read(0)).read_at
        return found.version.number, found.version.files, found.read_at

    async def list(self, scope: Scope = PLATFORM) -> tuple[PolicyDraft, ...]:
        """All drafts of the platform or of a course without files, ordered by id."""
        return await self.gate.run(self.drafts.list, scope)

    async def read(self, key: DraftKey) -> PolicyDraft:
        """Read a draft. Raises `NotFoundError`."""
        await self.gate.require_answer()
        return await self.gate.run(self.drafts.read, key)

    async def edit(
        self, key: DraftKey, etag: int, edits: Sequence[Edit], *, rebase: bool
    ) -> tuple[PolicyDraft, tuple[PolicyFault, ...]]:
        """The draft after the edits, and the faults of its files. With `rebase` it is first moved onto the
        active version. Raises as `edit_files`, `rebase_files` and `Drafts.replace`."""
        draft = await self.read_at(key, etag)
        if draft.publish_at is not None:
            raise precondition_failed(
                f"draft {key} is to be published at {format_instant(draft.publish_at)}; cancel that"
                f" first (`authz policy draft cancel {key.id}{of_course(key.scope)}`)",
                key=key.id,
            )
        number, files, read_at = await self.base(0, key.scope)
        if rebase and number != draft.base_number:
            draft = await self._rebased(draft, number, files)
        course = None if key.scope == PLATFORM else Course(key.scope.id, await self.publisher.platform())
        edited = await self.gate.compute_cancellable(edit_files, read_files(draft.files), edits, course)
        require_files(edited, field="edits")
        now = self.clock.at(read_at.committed_at)
        draft = msgspec.structs.replace(
            draft, files=files_text(edited), etag=etag + 1, edited_at=now, publication=None
        )
        await self.gate.run(self.drafts.replace, draft, etag=etag)
        return draft, await self.gate.compute(_faults_of, edited, course)

    async def _rebased(self, draft: PolicyDraft, number: int, onto: str) -> PolicyDraft:
        base = course_files("")
        if draft.base_number:
            base = (await self.publisher.read(draft.base_number, draft.scope)).version.files
        old, own, new = map(read_files, (base, draft.files, onto))
        files = await self.gate.compute(rebase_files, old, own, new)
        return msgspec.structs.replace(draft, files=files_text(files), base_number=number)

    async def publish(
        self, draft: PolicyDraft, origin: Authorship, require_permitted: RequirePermitted | None = None
    ) -> Published:
        """Make a draft, as it was read, the next version, as `Publisher.apply` does. Delete it, unless it is
        equal to the active version, or somebody has edited it meanwhile."""
        published = await self._apply(draft, origin, require_permitted, validate_only=False)
        if published.changed:
            with suppress(NotFoundError, FailedPreconditionError):
                await self.gate.run(self.drafts.delete, draft.key, etag=draft.etag)
        return published

    async def delete_published(self, draft: PolicyDraft) -> bool:
        """Delete a claimed draft whose files are active: it was published by a process that ended before it
        could delete the draft."""
        _, files, _ = await self.base(0, draft.scope)
        is_active = same_files(files, draft.files)
        if is_active:
            await self.gate.run(self.drafts.delete, draft.key, etag=draft.etag)
        return is_active

    async def schedule(self, draft: PolicyDraft, publication: Publication) -> tuple[PolicyDraft, Published]:
        """Schedule the publication of a draft that could be published now. Returns it, with its tests and
        warnings as of now."""
        if publication.at <= self.clock.at(0):
            raise malformed("publish_at", "is in the past; name a later time, or publish the draft now")
        found = await self._apply(draft, publication, None, validate_only=True)
        if not found.changed:
            raise precondition_failed(
                f"draft {draft.key} is equal to the active version, so there is nothing to publish; edit it",
                key=draft.id,
            )
        return await self._with_publication(draft, publication), found

    async def cancel(self, key: DraftKey, etag: int) -> PolicyDraft:
        """Cancel the scheduled publication; the draft stays."""
        return await self._with_publication(await self.read_at(key, etag), None)

    async def _with_publication(self, draft: PolicyDraft, publication: Publication | None) -> PolicyDraft:
        changed = msgspec.structs.replace(draft, etag=draft.etag + 1, publication=publication)
        await self.gate.run(self.drafts.replace, changed, etag=draft.etag)
        return changed

    async def _apply(
        self,
        draft: PolicyDraft,
        origin: Authorship,
        require_permitted: RequirePermitted | None,
        *,
        validate_only: bool,
    ) -> Published:
        try:
            return await self.publisher.apply(
                draft.files,
                origin,
                scope=draft.scope,
                expected=draft.base_number,
                validate_only=validate_only,
                draft=draft,
                require_permitted=require_permitted,
            )
        except (FailedPreconditionError, NotFoundError) as error:
            if error.reason in (ErrorReason.PRECONDITION_FAILED, ErrorReason.DRAFT_NOT_FOUND):
                await self._require_unpublished(draft)
            if error.reason is ErrorReason.PRECONDITION_FAILED:
                error.append(
                    f"; to do so, rebase the draft {draft.key} (`authz policy edit {draft.id}"
                    f"{of_course(draft.scope)} --rebase`), and look at its diff"
                )
            raise

    async def _require_unpublished(self, draft: PolicyDraft) -> None:
        """Raise `FailedPreconditionError` if the active version has the files of a draft: another call has
        published it meanwhile."""
        number, files, _ = await self.base(0, draft.scope)
        if same_files(files, draft.files):
            raise precondition_failed(
                f"draft {draft.key} is published already: version {number}, which is active, has its files",
                active=str(number),
            )

    async def delete(self, key: DraftKey, etag: int) -> None:
        """Delete a draft. Raises as `Drafts.delete`."""
        await self.read_at(key, etag)
        await self.gate.run(self.drafts.delete, key, etag=etag)

    async def read_at(self, key: DraftKey, etag: int) -> PolicyDraft:
        """The draft, if it has this etag, and no server is publishing it."""
        draft = await self.read(key)
        if draft.etag != etag:
            raise draft.stale()
        if draft.claimed_until is not None and draft.claimed_until > self.clock.at(0):
            raise ConflictError(f"draft {key} is being published now; look at the versions in half a minute")
        return draft


def _faults_of(files: dict[str, str], course: Course | None) -> tuple[PolicyFault, ...]:
    try:
        if course is None:
            load_files(files)
        else:
            load_course_policy(course.platform, course.id, files)
    except PolicyError as error:
        return with_lines(error.faults, files)
    return ()
