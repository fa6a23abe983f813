"""Publishes versions of policies: each is validated, then stored and activated in one transaction.

The proof takes seconds, in which others may publish. So the write has what the proof relies on as its
preconditions: the active version, and for a course that of the platform. If one is broken, the publish begins
again. For a policy of the platform, the policies that courses have activated meanwhile are reviewed first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from authz.domain.drafts import Authorship, PolicyDraft, no_course, of_course
from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    CourseFilter,
    EntityT_co,
    Filter,
    PolicyActivation,
    PolicyActivationFilter,
    PolicyActivationKey,
    PolicyVersion,
    PolicyVersionFilter,
    PolicyVersionKey,
)
from authz.domain.errors import (
    AlreadyExistsError,
    ConflictError,
    ErrorReason,
    FailedPreconditionError,
    NotFoundError,
    PolicyWarning,
    UnusablePolicyError,
    precondition_failed,
)
from authz.domain.files import FORMAT, files_digest, read_files
from authz.domain.ids import PLATFORM, Scope
from authz.domain.instants import Instant
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition, WriteRequest
from authz.domain.policy_changes import PolicyCertificate
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.course_review import CoursePolicyReview
from authz.engine.directory_warnings import PolicyWarnings, log_weakened
from authz.engine.group_commit import RequirePermitted
from authz.engine.policies import CompiledPolicies, no_policy
from authz.engine.policy_cases import Report, SnapshotOf, prove_and_test
from authz.engine.write import DirectoryWriter, WriteReport
from authz.policy.compile import CompiledPolicy
from authz.policy.course import load_course_policy, validate_course
from authz.policy.lint import lint_course
from authz.policy.prove import prove
from authz.policy.versions import ProvedPolicy, prove_files, require_certificate
from authz.policy.weakened import not_comparable, require_not_weakened
from authz.store.directory import SqlDirectory

_MAX_LOST_RACES = 3
"""After which a publish is tried a last time."""


class Published(msgspec.Struct, frozen=True):
    """The version that is active, whether it differs from the one before, and a state that includes it;
    `replicated` as in `WriteReport`. `tests` is what its tests came to, `warnings` what is legal and
    surprising.

    A course has no tests, and before its first version nothing that is active.
    """

    active: PolicyVersion | None
    changed: bool
    state: ConsistencyToken
    tests: Report | None
    warnings: tuple[PolicyWarning, ...]
    replicated: bool


class _Stored(msgspec.Struct, frozen=True):
    """A version as the database has it; `revision` is that of its activation if it is the active one."""

    version: PolicyVersion
    revision: int
    read_at: ConsistencyToken


class Validated(msgspec.Struct, frozen=True):
    """What a validation found, and what must still hold when the policy is activated.

    For the platform's policy the proof, what its tests came to, and the review of the policies of courses;
    for that of a course the precondition that the platform's version is the same.
    """

    proved: ProvedPolicy | None = None
    tests: Report | None = None
    warnings: tuple[PolicyWarning, ...] = ()
    review: CoursePolicyReview | None = None
    preconditions: tuple[Precondition, ...] = ()


def first_version(files: str, now: Instant) -> WriteRequest:
    """The write of version 1 of a new database: its files are those that the release ships."""
    origin = Authorship(author="authz", reason="the policy that the release ships", actor="authz")
    return publication(1, files, origin, now)


@dataclass(frozen=True, eq=False, kw_only=True)
class Publisher:
    """Publishes versions, and reads them from the source of truth. `scope` says whose: the platform's, or a
    course's."""

    directory: SqlDirectory
    gate: ConsistencyGate
    writer: DirectoryWriter
    policies: CompiledPolicies
    clock: DecisionClock
    warnings: PolicyWarnings
    snapshot_of: SnapshotOf

    async def validate(self, files: str, scope: Scope = PLATFORM) -> Validated:
        """What a policy is right under. Raises `PolicyError`: for the platform as `prove_and_test` does, and
        if the policies of courses do not pass under it; for a course as `validate_course` does. Raises
        `FailedPreconditionError` if there is no such course."""
        if scope == PLATFORM:
            proved, tests = await self.gate.compute_cancellable(
                prove_and_test, read_files(files), self.snapshot_of
            )
            review = CoursePolicyReview(self.gate, self.directory, proved.policy, proved.invariants)
            await review.advance()
            warnings = await self.warnings.of(proved.policy, proved.invariants)
            return Validated(proved, tests, warnings, review)
        await self.require_course(scope)
        platform = await self.read(0)
        warnings = await self.gate.compute(self._validate_in_course, platform.version, scope, files)
        unchanged = Precondition(PLATFORM_ACTIVATION, Expectation.AT_REVISION, platform.revision)
        return Validated(warnings=warnings, preconditions=(unchanged,))

    async def _marked_if_weakened(
        self, active: _Stored | None, proved: ProvedPolicy | None, origin: Authorship
    ) -> Authorship:
        """`origin`, whose `weaken_invariants` then says whether its invariants cover less than those
        of the active version. Raises `FailedPreconditionError` if they do and it does not permit that."""
        weakens = False
        try:
            if active is not None and proved is not None:
                before = await self.gate.compute(self.policies.invariants, active.version)
                require_not_weakened(before, proved.invariants, proved.policy.vocabulary)
        except (UnusablePolicyError, FailedPreconditionError) as error:
            if not origin.weaken_invariants:
                raise not_comparable(error) if isinstance(error, UnusablePolicyError) else error from None
            weakens = True
        return msgspec.structs.replace(origin, weaken_invariants=weakens)

    async def platform(self) -> CompiledPolicy:
        """The active policy of the platform."""
        active = (await self.read(0)).version
        return await self.gate.compute(self.policies.compiled, active)

    def _validate_in_course(
        self, platform: PolicyVersion, scope: Scope, files: str
    ) -> tuple[PolicyWarning, ...]:
        policy = self.policies.compiled(platform)
        invariants = self.policies.invariants(platform)
        return lint_course(validate_course(policy, invariants, scope.id, read_files(files)), policy)

    async def certificate(self, version: PolicyVersion) -> PolicyCertificate:
        """Why a published version keeps the invariants; of a course, with the active one of the platform.

        It follows from the files, which never change, so it is found again rather than stored. Raises
        `PolicyError` if this release does not find it.
        """
        if version.scope == PLATFORM:
            return await self.gate.compute_cancellable(_certificate, version, None)
        platform = (await self.read(0)).version
        return await self.gate.compute_cancellable(_certificate, platform, version)

    async def apply(
        self,
        files: str,
        origin: Authorship,
        *,
        scope: Scope = PLATFORM,
        expected: int | None,
        validate_only: bool,
        draft: PolicyDraft | None = None,
        require_permitted: RequirePermitted | None = None,
    ) -> Published:
        """Make the next version of these files, and activate it. Equal files change nothing.

        `expected` is the number that must be active, 0 for none, None for any. What is activated at the same
        time counts as activated before. Raises `PolicyError`, `FailedPreconditionError` if another version is
        active, its invariants cover more, or there is no such course, `ConflictError` if others were always
        faster, `NotFoundError` if `draft`, whose files these are, was deleted meanwhile, and what
        `require_permitted` does before the version is written.
        """
        lost = 0
        while True:
            await self._find_active(scope, expected)  # before the proof, which may take seconds
            try:
                validated = await self.validate(files, scope)
                before, read_at = await self._find_active(scope, expected)
                changed = before is None or not before.version.has_files(files)
                by = await self._marked_if_weakened(before, validated.proved, origin)
                if validate_only or not changed:
                    kept = None if before is None else before.version
                    # What another call has just activated is in effect here only once the replica has it.
                    replicated = validate_only or await self.gate.wait_until_replicated(read_at)
                    return Published(kept, changed, read_at, validated.tests, validated.warnings, replicated)
                now = self.clock.at(read_at.committed_at)
                number, activated_at = (0, 0) if before is None else (before.version.number, before.revision)
                request = publication(number + 1, files, by, now, activated_at, scope=scope, draft=draft)
                return await self._publish(request, validated, require_permitted)
            except ConflictError:
                lost += 1
                if lost > _MAX_LOST_RACES:
                    raise

    async def roll_back(
        self,
        number: int,
        origin: Authorship,
        *,
        scope: Scope = PLATFORM,
        expected: int | None,
        require_permitted: RequirePermitted | None = None,
    ) -> Published:
        """Make the next version of the files of an earlier one, as `apply` does.

        Raises `NotFoundError` for a number that no version has.
        """
        earlier = (await self.read(number, scope)).version
        reason = origin.reason or f"roll back to version {number}"
        origin = msgspec.structs.replace(origin, reason=reason)
        return await self.apply(
            earlier.files,
            origin,
            scope=scope,
            expected=expected,
            validate_only=False,
            require_permitted=require_permitted,
        )

    async def read(self, number: int, scope: Scope = PLATFORM) -> _Stored:
        """A version, the active one for 0. Raises `NotFoundError`."""
        if not number:
            active, _ = await self._find_active(scope)
            if active is None:
                await self.require_course(scope)
                raise NotFoundError(
                    ErrorReason.VERSION_NOT_FOUND,
                    f"{scope} has no policy of its own: the platform's alone decides there",
                    number="0",
                )
            return active
        listing = await self._read(PolicyVersionFilter(scope=scope, number=number))
        if not listing.items:
            raise NotFoundError(
                ErrorReason.VERSION_NOT_FOUND,
                f"there is no {PolicyVersionKey(scope, number)}; {_history(scope)} lists them",
                number=str(number),
            )
        return _Stored(listing.items[0].entity, listing.items[0].revision, listing.read_at)

    async def list(self, page: Page, scope: Scope = PLATFORM) -> Listing[PolicyVersion]:
        """A page of versions, ordered by number."""
        return await self.gate.run(self.directory.read, PolicyVersionFilter(scope=scope), page)

    async def _read(self, wanted: Filter[EntityT_co]) -> Listing[EntityT_co]:
        """The first record. Clients give a proof minutes, of which a database that hangs gets none."""
        await self.gate.require_answer()
        return await self.gate.run(self.directory.read, wanted, Page(1))

    async def active_number(self, scope: Scope = PLATFORM) -> int:
        """The number of the active version; 0 for a course without one."""
        active, _ = await self._find_active(scope)
        return 0 if active is None else active.version.number

    async def _find_active(
        self, scope: Scope, expected: int | None = None
    ) -> tuple[_Stored | None, ConsistencyToken]:
        """The active version, None for a course without one, and when it was read. Raises
        `FailedPreconditionError` if another number is `expected`, 0 for none."""
        listing = await self._read(PolicyActivationFilter(scope=scope))
        active, number, read_at = None, 0, listing.read_at
        if listing.items:
            activation = listing.items[0]
            number = activation.entity.number
            found = await self.read(number, scope)
            active, read_at = _Stored(found.version, activation.revision, found.read_at), found.read_at
        elif scope == PLATFORM:
            raise no_policy()
        if expected not in (None, number):
            raise not_active(number, expected, scope)
        return active, read_at

    async def require_course(self, scope: Scope) -> None:
        """Raise `FailedPreconditionError` if the scope is a course that there is not."""
        if scope != PLATFORM and not (await self._read(CourseFilter(ids=(scope.id,)))).items:
            raise no_course(scope)

    async def _publish(
        self, request: WriteRequest, validated: Validated, require_permitted: RequirePermitted | None
    ) -> Published:
        version = request.mutations[0].target
        assert isinstance(version, PolicyVersion)  # noqa: S101  made so; narrows the type
        if version.scope == PLATFORM:
            # This process has it compiled when it is activated.
            await self.gate.compute(self.policies.compiled, version)
        try:
            report = await self._write_when_reviewed(request, validated, require_permitted)
        except (AlreadyExistsError, FailedPreconditionError) as error:
            if error.reason in (ErrorReason.REFERENCE_NOT_FOUND, ErrorReason.LAST_ADMINISTRATOR):
                raise  # the course was deleted, or nobody could edit the policy any more
            raise ConflictError(
                "another version of the policy was activated at the same time; try again"
            ) from None
        log_weakened(version.number, validated.warnings)
        return Published(version, True, report.state, validated.tests, validated.warnings, report.replicated)

    async def _write_when_reviewed(
        self, request: WriteRequest, validated: Validated, require_permitted: RequirePermitted | None
    ) -> WriteReport:
        """Write, unless what the policy is right under has changed; look again at what courses activated."""
        preconditions, review = request.preconditions + validated.preconditions, validated.review
        request = msgspec.structs.replace(request, preconditions=preconditions)
        while True:
            if review is not None:
                request = msgspec.structs.replace(request, course_policies_at=review.revision)
            try:
                return await self.writer.write(request, require_permitted)
            except ConflictError:
                if review is None or not await review.advance():
                    raise


def _history(scope: Scope) -> str:
    """The command that lists the versions."""
    return f"`authz policy history{of_course(scope)}`"


def not_active(active: int, expected: int, scope: Scope) -> FailedPreconditionError:
    """The error for a change to a version that is not active. 0 is none."""
    return precondition_failed(
        f"the active version is {active or 'none'}, not {expected or 'none'}; look at what changed since"
        f" ({_history(scope)}), and apply your change to that",
        active=str(active),
    )


def _certificate(
    platform: PolicyVersion, of_course: PolicyVersion | None, require_not_cancelled: Callable[[], object]
) -> PolicyCertificate:
    proved = prove_files(read_files(platform.files), require_not_cancelled)
    found = proved.certificate
    if of_course is not None:
        policy = load_course_policy(proved.policy, of_course.scope.id, read_files(of_course.files))
        found = require_certificate(prove(policy, proved.invariants, require_not_cancelled))
    return PolicyCertificate(
        policy_digest=found.policy,
        invariants_digest=found.invariants,
        invariants=len(proved.invariants),
        obligations=found.obligations,
        json=msgspec.json.encode(found).decode(),
    )


def publication(
    number: int,
    files: str,
    origin: Authorship,
    now: Instant,
    activated_at: int = 0,
    *,
    scope: Scope = PLATFORM,
    draft: PolicyDraft | None = None,
) -> WriteRequest:
    """The write that makes a version and activates it, if `activated_at` is the revision of the last
    activation; 0 for the first one. With `draft`, only if that was not deleted meanwhile."""
    digest = files_digest(files)
    version = PolicyVersion(
        scope=scope,
        number=number,
        digest=digest,
        files=files,
        format=FORMAT,
        author=origin.author or origin.actor,
        reason=origin.reason,
        created_at=now,
        weakens_invariants=origin.weaken_invariants,
    )
    activation = PolicyActivation(scope=scope, number=number, digest=digest)
    expectation = Expectation.AT_REVISION if activated_at else Expectation.NOT_EXISTS
    return WriteRequest(
        mutations=(Mutation(Operation.CREATE, version), Mutation(Operation.TOUCH, activation)),
        preconditions=(Precondition(PolicyActivationKey(scope), expectation, activated_at),),
        origin=origin,
        draft=draft,
    )
