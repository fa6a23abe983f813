"""PolicyService: the versions of the platform's policy, and of those that courses have of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import msgspec

from authz.api.call import Call
from authz.api.grpc.answers import token_message
from authz.api.grpc.drafts import DraftCalls
from authz.api.grpc.shadows import ShadowCalls
from authz.api.permissions import require_policy_edit, require_policy_read
from authz.domain.decisions import EDIT_POLICY
from authz.domain.drafts import Authorship, Publication
from authz.domain.entities import PolicyActivationFilter
from authz.domain.errors import PermissionDeniedError, PolicyError
from authz.domain.ids import PLATFORM, Scope
from authz.domain.policy_changes import PolicySource
from authz.domain.ports import Page
from authz.engine.compare import Comparer
from authz.engine.consistency import ConsistencyGate
from authz.engine.policy_cases import Report
from authz.engine.preview.previewer import Previewer
from authz.engine.publish import Published, Publisher, not_active
from authz.v1 import policy_pb2 as pb
from authz.wire.decisions import rule_message
from authz.wire.drafts import draft_message, parse_draft_key, parse_etag
from authz.wire.entities import entity_message
from authz.wire.fields import parse_files
from authz.wire.filters import parse_page
from authz.wire.policies import (
    diff_message,
    fault_messages,
    page_size_of,
    parse_author,
    parse_number,
    parse_policy_scope,
    parse_source,
    summary_message,
    version_message,
    warning_messages,
)
from authz.wire.previews import parse_preview_limits, preview_message
from authz.wire.values import parse_time
from authz.wire.writes import parse_reason

_Publishing: TypeAlias = (
    pb.ApplyPolicyRequest
    | pb.RollBackPolicyRequest
    | pb.PublishPolicyDraftRequest
    | pb.SchedulePolicyDraftRequest
)
_MAX_EXAMPLES = 100
"""Of what no test touches, in an answer."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PolicyServicer(DraftCalls, ShadowCalls):
    """Publishes through the one writer of the process; reads come from the source of truth."""

    service = pb.DESCRIPTOR.services_by_name["PolicyService"]

    publisher: Publisher
    comparer: Comparer
    previewer: Previewer
    gate: ConsistencyGate

    async def ApplyPolicy(self, request: pb.ApplyPolicyRequest, call: Call) -> pb.ApplyPolicyResponse:
        """Make files the next version, unless they are those of the active one."""
        files, scope = parse_files(request.files, field="files"), parse_policy_scope(request.course_id)
        origin = _origin(request, call)
        expected = await self._expected(request, call, PolicySource(files=files), scope)
        published = await self.publisher.apply(
            files,
            origin,
            scope=scope,
            expected=expected,
            validate_only=request.validate_only,
            require_permitted=call.require_permitted,
        )
        return pb.ApplyPolicyResponse(**self._outcome(published))

    async def RollBackPolicy(
        self, request: pb.RollBackPolicyRequest, call: Call
    ) -> pb.RollBackPolicyResponse:
        """Make the next version from the files of an earlier one."""
        number = parse_number(request.number, field="number", least=1)
        scope, origin = parse_policy_scope(request.course_id), _origin(request, call)
        expected = await self._expected(request, call, PolicySource(number=number), scope)
        published = await self.publisher.roll_back(
            number, origin, scope=scope, expected=expected, require_permitted=call.require_permitted
        )
        return pb.RollBackPolicyResponse(**self._outcome(published))

    async def PublishPolicyDraft(
        self, request: pb.PublishPolicyDraftRequest, call: Call
    ) -> pb.PublishPolicyDraftResponse:
        """Make a draft the next version."""
        key, etag = parse_draft_key(request), parse_etag(request.etag)
        draft = await self.draft_editor.read_at(key, etag)
        source = PolicySource(files=draft.files)
        await self._require_publication(request, call, source, key.scope)
        published = await self.draft_editor.publish(draft, _origin(request, call), call.require_permitted)
        return pb.PublishPolicyDraftResponse(**self._outcome(published))

    async def SchedulePolicyDraft(
        self, request: pb.SchedulePolicyDraftRequest, call: Call
    ) -> pb.SchedulePolicyDraftResponse:
        """Schedule the publication of a draft, or cancel it."""
        key, etag = parse_draft_key(request), parse_etag(request.etag)
        principal, at = call.principal, parse_time(request, "publish_at", field="publish_at")
        if at is None:
            await require_policy_edit(call, self.rights, key.scope)
            cancelled = await self.draft_editor.cancel(key, etag)
            return pb.SchedulePolicyDraftResponse(draft=draft_message(cancelled))
        draft = await self.draft_editor.read_at(key, etag)
        source = PolicySource(files=draft.files)
        await self._require_publication(request, call, source, key.scope)
        publication = Publication(
            at=at,
            author=parse_author(request.author),
            reason=parse_reason(request.reason),
            caller=principal.caller,
            person=principal.on_behalf_of,
            actor=principal.actor,
            request_id=call.request_id,
            weaken_invariants=request.weaken_invariants,
        )
        draft, found = await self.draft_editor.schedule(draft, publication)
        return pb.SchedulePolicyDraftResponse(
            draft=draft_message(draft),
            tests=_tests_message(found.tests),
            warnings=warning_messages(found.warnings),
        )

    async def ValidatePolicy(
        self, request: pb.ValidatePolicyRequest, call: Call
    ) -> pb.ValidatePolicyResponse:
        """Find every fault of a policy, and what is legal and surprising. The answer names courses."""
        scope = parse_policy_scope(request.course_id)
        await require_policy_edit(call, self.rights, scope)
        try:
            validated = await self.publisher.validate(parse_files(request.files, field="files"), scope)
        except PolicyError as error:
            return pb.ValidatePolicyResponse(faults=fault_messages(error.faults))
        return pb.ValidatePolicyResponse(
            tests=_tests_message(validated.tests), warnings=warning_messages(validated.warnings)
        )

    async def DiffPolicyVersions(
        self, request: pb.DiffPolicyVersionsRequest, call: Call
    ) -> pb.DiffPolicyVersionsResponse:
        """Compare what two policies decide."""
        before, after = (
            parse_source(
                getattr(request, f"{side}_files"),
                getattr(request, f"{side}_number"),
                files_field=f"{side}_files",
                number_field=f"{side}_number",
            )
            for side in ("before", "after")
        )
        scope = parse_policy_scope(request.course_id)
        await require_policy_read(call, self.rights, scope)
        return diff_message(await self.comparer.diff(before, after, scope))

    async def PreviewPolicy(
        self,
        request: pb.PreviewPolicyRequest,
        call: Call,
        send: Callable[[pb.PreviewPolicyResponse], Awaitable[None]],
    ) -> None:
        """Stream who would gain and lose what. The answer names people."""
        source = parse_source(request.files, request.number, files_field="files", number_field="number")
        max_examples, max_largest = parse_preview_limits(request)
        scope = parse_policy_scope(request.course_id)
        await require_policy_edit(call, self.rights, scope)
        await self.gate.require_answer()  # else it takes a place of lists, which need no database
        await self.previewer.preview(
            source,
            scope,
            call.consistency,
            call.deadline,
            max_examples=max_examples,
            max_largest=max_largest,
            write=lambda events: send(preview_message(events)),
        )

    async def ReadPolicyVersions(
        self, request: pb.ReadPolicyVersionsRequest, call: Call
    ) -> pb.ReadPolicyVersionsResponse:
        """Read a page of versions, without their files."""
        page = Page(page_size_of(request.page_size), request.page_token)
        scope = parse_policy_scope(request.course_id)
        await require_policy_read(call, self.rights, scope)
        await self.gate.wait_until(call.consistency, call.deadline)
        listing = await self.publisher.list(page, scope)
        if not listing.items:
            await self.publisher.require_course(scope)
        return pb.ReadPolicyVersionsResponse(
            policy_versions=[summary_message(each.entity, each.revision) for each in listing.items],
            next_page_token=listing.next_token,
            read_at=token_message(self.gate, listing.read_at),
        )

    async def ReadPolicyActivations(
        self, request: pb.ReadPolicyActivationsRequest, call: Call
    ) -> pb.ReadPolicyActivationsResponse:
        """Read a page of what is active. The answer names courses."""
        page = parse_page(request)
        await require_policy_edit(call, self.rights, PLATFORM)
        await self.gate.wait_until(call.consistency, call.deadline)
        listing = await self.gate.run(self.publisher.directory.read, PolicyActivationFilter(), page)
        return pb.ReadPolicyActivationsResponse(
            policy_activations=map(entity_message, listing.items),
            next_page_token=listing.next_token,
            read_at=token_message(self.gate, listing.read_at),
        )

    async def ReadPolicyVersion(
        self, request: pb.ReadPolicyVersionRequest, call: Call
    ) -> pb.ReadPolicyVersionResponse:
        """Read a version with its files."""
        number, scope = parse_number(request.number, field="number"), parse_policy_scope(request.course_id)
        await require_policy_read(call, self.rights, scope)
        await self.gate.wait_until(call.consistency, call.deadline)
        found, certificate = await self.publisher.read(number, scope), None
        if request.include_certificate:
            proved = await self.publisher.certificate(found.version)
            certificate = pb.PolicyCertificate(**msgspec.structs.asdict(proved))
        return pb.ReadPolicyVersionResponse(
            policy_version=version_message(found.version, found.revision),
            active_number=await self.publisher.active_number(scope),
            read_at=token_message(self.gate, found.read_at),
            certificate=certificate,
        )

    async def _expected(
        self,
        request: pb.ApplyPolicyRequest | pb.RollBackPolicyRequest,
        call: Call,
        source: PolicySource,
        scope: Scope,
    ) -> int | None:
        """The number that must be active, None for any: the one that the request names, and the one that the
        rights of a person were compared with."""
        expected = None
        if request.HasField("expected_active_number"):
            expected = parse_number(request.expected_active_number, field="expected_active_number")
        held_to = await self._require_publication(request, call, source, scope)
        if held_to is not None and expected not in (None, held_to):
            raise not_active(held_to, expected, scope)
        return expected if held_to is None else held_to

    async def _require_publication(
        self, request: _Publishing, call: Call, source: PolicySource, scope: Scope
    ) -> int | None:
        """As `PersonRights.require_publication`, throughout the call: a proof takes long. Raises
        `PermissionDeniedError` also if a person weakens invariants, which courses must keep, too."""
        person = call.principal.on_behalf_of
        if person is not None and request.weaken_invariants:
            raise PermissionDeniedError(
                f"{person} may not weaken invariants, which the policies of courses must keep, too: leave out"
                " weaken_invariants, or have it published by a caller that acts for nobody",
                permission=EDIT_POLICY,
                scope=str(scope),
            )
        return await call.require_throughout(partial(self.rights.require_publication, person, source, scope))

    def _outcome(self, published: Published) -> dict[str, Any]:
        return {
            "active": None if published.active is None else summary_message(published.active),
            "changed": published.changed,
            "written_at": token_message(self.gate, published.state),
            "replicated": published.replicated,
            "tests": _tests_message(published.tests),
            "warnings": warning_messages(published.warnings),
        }


def _origin(request: _Publishing, call: Call) -> Authorship:
    return Authorship(
        author=parse_author(request.author),
        reason=parse_reason(request.reason),
        actor=call.principal.actor,
        request_id=call.request_id,
        weaken_invariants=request.weaken_invariants,
    )


def _tests_message(report: Report | None) -> pb.PolicyTests | None:
    """What the tests of a policy came to, with the first examples of what none of them touches."""
    if report is None:
        return None
    return pb.PolicyTests(
        passed=report.passed,
        rules=report.rules,
        untouched_rules=len(report.untouched_rules),
        untouched_rule_examples=map(rule_message, report.untouched_rules[:_MAX_EXAMPLES]),
        cells=report.cells,
        untouched_cells=len(report.untouched_cells),
        untouched_cell_examples=(
            pb.PolicyCell(role=role, type=type_name, action=action)
            for role, type_name, action in report.untouched_cells[:_MAX_EXAMPLES]
        ),
    )
