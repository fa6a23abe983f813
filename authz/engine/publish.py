"""Publishes versions of the platform's policy: each is validated, stored and activated in one transaction."""

from __future__ import annotations

from functools import partial

import msgspec

from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    PolicyActivation,
    PolicyActivationFilter,
    PolicyVersion,
    PolicyVersionFilter,
    Versioned,
)
from authz.domain.errors import (
    AlreadyExistsError,
    ConflictError,
    ErrorReason,
    FailedPreconditionError,
    NotFoundError,
)
from authz.domain.files import files_digest, read_files
from authz.domain.ids import PLATFORM
from authz.domain.instants import Instant
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition, WriteRequest
from authz.domain.ports import Directory, Listing, Page
from authz.domain.tokens import ConsistencyToken
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import CompiledPolicies, no_policy
from authz.engine.policy_cases import Report, SnapshotOf, validate_files
from authz.engine.write import DirectoryWriter
from authz.policy.versions import FORMAT, prove_files


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Who publishes, and why. `actor` and `request_id` are those of the call."""

    author: str = ""
    reason: str = ""
    actor: str = ""
    request_id: str = ""


class Published(msgspec.Struct, frozen=True):
    """The version that is active, whether it differs from the one before, and a state that includes it;
    `replicated` as in `WriteReport`. `tests` is what its tests came to."""

    active: PolicyVersion
    changed: bool
    state: ConsistencyToken
    tests: Report
    replicated: bool = True


class PolicyCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """That a version keeps its invariants: for which digests, over how many cases, and, as JSON, why."""

    policy_digest: str
    invariants_digest: str
    invariants: int
    obligations: int
    json: str


class _Active(msgspec.Struct, frozen=True):
    """The active version as the database has it; `revision` is that of its activation."""

    version: PolicyVersion
    revision: int
    read_at: ConsistencyToken


def first_version(files: str, now: Instant) -> WriteRequest:
    """The write of version 1 of a new database: its files are those that the release ships."""
    origin = Origin(author="authz", reason="the policy that the release ships", actor="authz")
    return publication(1, files, origin, now)


class Publisher:
    """Publishes versions, and reads them from the source of truth."""

    def __init__(
        self,
        directory: Directory,
        gate: ConsistencyGate,
        writer: DirectoryWriter,
        policies: CompiledPolicies,
        clock: DecisionClock,
        *,
        snapshot_of: SnapshotOf,
    ) -> None:
        self._directory = directory
        self._gate = gate
        self._writer = writer
        self._policies = policies
        self._clock = clock
        self._snapshot_of = snapshot_of

    async def validate(self, files: str) -> Report:
        """What the tests of a policy come to. Raises `PolicyError` as `validate_files` does."""
        _, report = await self._gate.run(partial(validate_files, read_files(files), self._snapshot_of))
        return report

    async def certificate(self, version: PolicyVersion) -> PolicyCertificate:
        """Why a published version keeps its invariants.

        It follows from the files, which never change, so it is found again rather than stored. Raises
        `PolicyError` if this release does not find it.
        """
        proved = await self._gate.run(partial(prove_files, read_files(version.files)))
        found = proved.certificate
        return PolicyCertificate(
            policy_digest=found.policy,
            invariants_digest=found.invariants,
            invariants=len(proved.invariants),
            obligations=found.obligations,
            json=msgspec.json.encode(found).decode(),
        )

    async def apply(self, files: str, origin: Origin, *, expected: int, validate_only: bool) -> Published:
        """Make the next version of these files, and activate it. Equal files change nothing.

        `expected` is the number that must be active, 0 for any. Raises `PolicyError`,
        `FailedPreconditionError` if another version is active, and `ConflictError` if another one was
        activated at the same time.
        """
        tests = await self.validate(files)
        before = await self._active()
        if expected not in (0, before.version.number):
            raise FailedPreconditionError(
                ErrorReason.PRECONDITION_FAILED,
                f"version {before.version.number} is active, not {expected}; look at what changed since, and"
                " apply your change to that",
                active=str(before.version.number),
            )
        changed = files_digest(files) != before.version.digest
        if validate_only or not changed:
            return Published(before.version, changed, before.read_at, tests)
        return await self._publish(files, origin, before, tests)

    async def roll_back(self, number: int, origin: Origin, *, expected: int) -> Published:
        """Make the next version of the files of an earlier one, as `apply` does.

        Raises `NotFoundError` for a number that no version has.
        """
        earlier = (await self.read(number)).version
        reason = origin.reason or f"roll back to version {number}"
        origin = msgspec.structs.replace(origin, reason=reason)
        return await self.apply(earlier.files, origin, expected=expected, validate_only=False)

    async def read(self, number: int) -> _Active:
        """A version, the active one for 0. Raises `NotFoundError`."""
        if not number:
            return await self._active()
        listing = await self._gate.run(
            partial(self._directory.read, PolicyVersionFilter(scope=PLATFORM, number=number), Page(1))
        )
        if not listing.items:
            raise NotFoundError(
                ErrorReason.VERSION_NOT_FOUND,
                f"there is no version {number} of the policy; `ReadPolicyVersions` lists them",
                number=str(number),
            )
        return _Active(listing.items[0].entity, listing.items[0].version, listing.read_at)

    async def list(self, page: Page) -> Listing[PolicyVersion]:
        """A page of versions, ordered by number."""
        return await self._gate.run(partial(self._directory.read, PolicyVersionFilter(scope=PLATFORM), page))

    async def active(self) -> Versioned[PolicyActivation]:
        """The activation."""
        listing = await self._gate.run(
            partial(self._directory.read, PolicyActivationFilter(scope=PLATFORM), Page(1))
        )
        if not listing.items:
            raise no_policy()
        return listing.items[0]

    async def _active(self) -> _Active:
        activation = await self.active()
        found = await self.read(activation.entity.number)
        return _Active(found.version, activation.version, found.read_at)

    async def _publish(self, files: str, origin: Origin, before: _Active, tests: Report) -> Published:
        now = self._clock.at(before.read_at.committed_at)
        request = publication(before.version.number + 1, files, origin, now, before.revision)
        version = request.mutations[0].target
        assert isinstance(version, PolicyVersion)  # noqa: S101  made so; narrows the type
        # This process has it compiled when it is activated.
        await self._gate.run(partial(self._policies.compiled, version))
        try:
            report = await self._writer.write(request)
        except (AlreadyExistsError, FailedPreconditionError):
            raise ConflictError(
                ErrorReason.WRITE_CONFLICT,
                "another version of the policy was activated at the same time; try again",
            ) from None
        return Published(version, True, report.state, tests, report.replicated)


def publication(number: int, files: str, origin: Origin, now: Instant, activated_at: int = 0) -> WriteRequest:
    """The write that makes a version and activates it, if `activated_at` is the revision of the last
    activation; 0 for the first one."""
    digest = files_digest(files)
    version = PolicyVersion(
        scope=PLATFORM,
        number=number,
        digest=digest,
        files=files,
        format=FORMAT,
        author=origin.author or origin.actor,
        reason=origin.reason,
        created_at=now,
    )
    activation = PolicyActivation(scope=PLATFORM, number=number, digest=digest)
    expectation = Expectation.AT_VERSION if activated_at else Expectation.NOT_EXISTS
    return WriteRequest(
        mutations=(Mutation(Operation.CREATE, version), Mutation(Operation.TOUCH, activation)),
        preconditions=(Precondition(PLATFORM_ACTIVATION, expectation, activated_at),),
        reason=origin.reason,
        actor=origin.actor,
        request_id=origin.request_id,
    )
