"""What an import does to courses: classes that end and return, and terms."""

from __future__ import annotations

import pytest

from authz.domain.entities import Course, CourseKey, CourseState, Membership
from tests.importers.exports import BULK, Campus, at, enrolled, klass, user
from tests.importers.oneroster.plans import DELTA, SUSPENDED, changed, changes, faults, notes


def test_a_class_that_is_to_be_deleted_concludes_its_course_and_returns(campus: Campus) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar", status="tobedeleted")]
    campus.take_in(rows)
    plan = campus.take_in(rows, classes=[klass("alg", "tobedeleted")])
    assert changes(plan)[0] == "changed classes.csv:2: course:alg (ACTIVE -> CONCLUDED)"
    assert (campus.course("alg").state, plan.ended) == (CourseState.CONCLUDED, 1)
    assert campus.roles("maya") == {"student in alg"}
    marker = next(
        each for each in campus.held.values() if isinstance(each, Membership) and each.source_ref == "class"
    )
    assert (str(marker.subject), marker.status) == ("service:oneroster", SUSPENDED)
    campus.take_in(rows)
    assert campus.course("alg").state is CourseState.ACTIVE
    assert marker.key not in campus.held


def test_a_class_that_an_earlier_import_has_concluded_takes_in_nobody(campus: Campus) -> None:
    maya = enrolled("e1", "alg", "maya", status="active", modified="2026-09-02")
    omar = enrolled("e2", "alg", "omar", status="active", modified="2026-09-02")
    campus.take_in([maya])
    campus.take_in([maya], classes=[klass("alg", "tobedeleted")])
    plan = campus.take_in([maya, omar], classes=None, modes={"enrollments": "delta"})
    assert notes(plan) == [
        "enrollments.csv:3: is in class `alg`, which is concluded by an earlier import; skipped"
    ]
    assert (campus.roles("maya"), campus.of("omar")) == ({"student in alg"}, [])
    campus.write(Course(id="alg", state=CourseState.ACTIVE))
    campus.take_in([omar], classes=None, modes={"enrollments": "delta"})
    assert campus.roles("omar") == {"student in alg"}


@pytest.mark.parametrize("status", ["tobedeleted", "odd"])
def test_an_enrollment_that_names_somebody_else_leaves_nobody_in_a_class_that_ends(
    campus: Campus, status: str
) -> None:
    campus.take_in(
        [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "nora"), enrolled("e3", "alg", "gita")]
    )
    renamed = [
        enrolled("e1", "alg", "omar"),
        enrolled("e2", "alg", "nora", "aide"),
        enrolled("e3", "alg", "gita"),
    ]
    plan = campus.take_in(renamed, classes=[klass("alg", status)])
    assert [campus.of(each) for each in ("maya", "omar", "nora")] == [[], [], []]
    assert campus.roles("gita") == {"student in alg"}
    assert plan.ended == 3


@pytest.mark.parametrize("state", [CourseState.DRAFT, CourseState.ARCHIVED])
def test_a_class_that_is_to_be_deleted_leaves_another_state_as_it_is(
    campus: Campus, state: CourseState
) -> None:
    campus.write(Course(id="alg", state=state))
    assert changes(campus.take_in(classes=[klass("alg", "tobedeleted")])) == []


def test_a_course_that_was_concluded_by_hand_stays_concluded(campus: Campus) -> None:
    campus.write(Course(id="alg", state=CourseState.CONCLUDED))
    plan = campus.take_in()
    assert campus.course("alg").state is CourseState.CONCLUDED
    assert notes(plan) == ["classes.csv:2: course:alg was not concluded by this roster; it stays concluded"]


def test_a_course_that_was_reopened_by_hand_stays_open(campus: Campus) -> None:
    campus.take_in()
    campus.take_in(classes=[klass("alg", "tobedeleted")])
    campus.write(Course(id="alg", state=CourseState.ACTIVE))
    plan = campus.take_in(classes=[klass("alg", "tobedeleted")])
    assert campus.course("alg").state is CourseState.ACTIVE
    assert notes(plan) == [
        "classes.csv:2: course:alg was made active by hand since the roster concluded it; it stays active"
    ]


def test_a_course_that_was_reopened_and_concluded_by_hand_stays_concluded(campus: Campus) -> None:
    campus.take_in()
    campus.take_in(classes=[klass("alg", "tobedeleted")])
    campus.write(Course(id="alg", state=CourseState.ACTIVE))
    campus.write(Course(id="alg", state=CourseState.CONCLUDED))
    plan = campus.take_in()
    assert campus.course("alg").state is CourseState.CONCLUDED
    assert notes(plan) == [
        "classes.csv:2: course:alg was changed since this roster concluded it; it stays concluded"
    ]
    campus.write(Course(id="alg", state=CourseState.ACTIVE))
    campus.take_in()
    campus.take_in(classes=[klass("alg", "tobedeleted")])
    campus.take_in()
    assert campus.course("alg").state is CourseState.ACTIVE


def test_an_older_export_does_not_reopen_a_course(campus: Campus) -> None:
    campus.take_in(classes=[klass("alg", dateLastModified="2026-09-01")])
    campus.take_in(classes=[klass("alg", "tobedeleted", dateLastModified="2026-09-02")])
    campus.take_in(classes=[klass("alg", dateLastModified="2026-09-01")])
    assert campus.course("alg").state is CourseState.CONCLUDED


def test_a_class_at_fault_concludes_its_course_until_it_is_corrected(campus: Campus) -> None:
    rows = [enrolled("e1", "alg", "maya")]
    campus.take_in(rows)
    plan = campus.take_in([*rows, enrolled("e2", "alg", "omar")], classes=[klass("alg", "inactive")])
    assert (len(plan.faults), campus.course("alg").state) == (1, CourseState.CONCLUDED)
    assert notes(plan) == ["enrollments.csv:3: is in class `alg`, which is at fault in classes.csv; skipped"]
    assert (campus.roles("maya"), campus.of("omar")) == ({"student in alg"}, [])
    campus.take_in()
    assert campus.course("alg").state is CourseState.ACTIVE


def test_a_class_that_is_absent_from_a_bulk_file_concludes_its_course(campus: Campus) -> None:
    campus.take_in(
        [enrolled("e1", "alg", "maya"), enrolled("e2", "bio", "omar")], classes=[klass("alg"), klass("bio")]
    )
    campus.write(Course(id="own", state=CourseState.ACTIVE))
    plan = campus.take_in(None, classes=[klass("bio")], modes={"classes": "bulk"})
    assert (campus.course("alg").state, campus.course("own").state) == (
        CourseState.CONCLUDED,
        CourseState.ACTIVE,
    )
    assert (plan.ended, plan.absent) == (1, 1)


def test_with_delete_classes_a_course_goes_with_everything_in_it(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    gone = [klass("alg", "tobedeleted")]
    plan = campus.take_in([enrolled("e1", "alg", "maya")], classes=gone, deletes_classes=True)
    assert changes(plan) == ["removed classes.csv:2: course:alg (with everything in it)"]
    assert CourseKey("alg") not in campus.held
    assert (plan.ended, campus.of("maya")) == (1, [])


def test_nothing_is_given_in_a_course_that_is_deleted(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")], users=[user("maya", enabledUser="false")])
    gone = [klass("alg", "tobedeleted")]
    plan = campus.take_in([], classes=gone, users=[user("maya")], deletes_classes=True)
    assert changes(plan) == ["removed classes.csv:2: course:alg (with everything in it)"]


def test_an_enrollment_in_a_class_that_is_to_be_deleted_is_noted(campus: Campus) -> None:
    classes = [klass("alg"), klass("bio", "tobedeleted")]
    plan = campus.take_in([enrolled("e1", "alg", "maya"), enrolled("e2", "bio", "maya")], classes=classes)
    assert (faults(plan), campus.roles("maya")) == ([], {"student in alg"})
    assert notes(plan) == ["enrollments.csv:3: is in class `bio`, which is to be deleted; skipped"]


def test_the_terms_of_a_class_end_enrollments_that_state_no_end(campus: Campus) -> None:
    classes = [klass("alg", termSourcedIds="t1,t2")]
    terms = {"t1": "2026-06-30", "t2": "2026-12-20"}
    rows = [
        enrolled("e1", "alg", "maya"),
        enrolled("e2", "alg", "omar", end="2027-02-01"),
        enrolled("e3", "alg", "nora", begin="2027-01-01"),
    ]
    plan = campus.take_in(rows, classes=classes, terms=terms)
    assert (campus.only("maya").ends_at, campus.only("omar").ends_at) == (at("2026-12-20"), at("2027-02-01"))
    assert notes(plan) == [
        "enrollments.csv:4: never in effect: begins after the terms of its class end; skipped"
    ]
    assert campus.of("nora") == []


def test_the_end_of_a_term_outlives_exports_that_do_not_say_it(campus: Campus) -> None:
    classes, terms = [klass("alg", termSourcedIds="t1")], {"t1": "2026-12-20"}
    campus.take_in([enrolled("e1", "alg", "maya")], classes=classes, terms=terms)
    campus.take_in([changed("e1", "maya"), changed("e2", "omar")], classes=None, modes=DELTA)
    assert (campus.only("maya").ends_at, campus.only("omar").ends_at) == (at("2026-12-20"), at("2026-12-20"))
    modes = {"classes": "bulk", "academicSessions": "bulk"}
    campus.take_in(None, classes=classes, terms={"t1": "2027-01-31"}, modes=modes)
    assert campus.only("maya").ends_at == at("2027-01-31")
    campus.now = at("2027-02-01")
    campus.take_in(None, classes=classes, terms={"t1": "2027-06-30"}, modes=modes)
    assert campus.roles("maya") == set()
    campus.take_in([enrolled("e1", "alg", "maya")], classes=classes, terms={"t1": "2027-06-30"})
    assert campus.only("maya").ends_at == at("2027-06-30")
    campus.take_in(None, classes=[klass("alg")], modes={"classes": "bulk"})
    assert campus.only("maya").ends_at is None


@pytest.mark.parametrize("status", ["tobedeleted", "odd", "concluded before"])
def test_an_enrollment_in_a_class_that_is_over_keeps_its_membership_with_the_dates_that_it_states(
    campus: Campus, status: str
) -> None:
    rows = [enrolled("e1", "alg", "maya", end="2027-06-30"), enrolled("e2", "alg", "omar")]
    campus.take_in(rows)
    classes = [klass("alg", status)]
    if status == "concluded before":
        campus.take_in(rows, classes=[klass("alg", "tobedeleted")])
        classes = []
    sooner = [
        enrolled("e1", "alg", "maya", end="2026-12-20"),
        enrolled("e2", "alg", "omar", end="2026-09-15"),
    ]
    campus.take_in([*sooner, enrolled("e3", "alg", "nora")], classes=classes)
    assert campus.only("maya").ends_at == at("2026-12-20")
    assert campus.only("omar").ends_at == at("2026-09-15")
    assert campus.of("nora") == []
    campus.take_in([enrolled("e2", "alg", "omar", end="2027-06-30")], classes=classes)
    assert campus.roles("omar") == set()


def test_an_end_of_terms_that_only_an_earlier_import_knew_drops_no_later_enrollment(campus: Campus) -> None:
    """Else a second import, which knows the end no more, would give what the first one skipped."""
    terms = {"autumn": "2026-12-31"}
    autumn, spring = (klass("alg", termSourcedIds=term) for term in ("autumn", "spring"))
    campus.take_in([enrolled("e1", "alg", "maya")], classes=[autumn], terms=terms)
    rows, users = [enrolled("e2", "alg", "omar", begin="2027-02-01")], [user("omar")]
    campus.take_in(rows, classes=[spring], users=users, terms=terms, modes=BULK)
    assert campus.roles("maya") == set()
    assert (campus.only("omar").starts_at, campus.only("omar").ends_at) == (at("2027-02-01"), None)


def test_a_membership_that_the_roster_has_suspended_is_taken_over_by_an_enrollment(campus: Campus) -> None:
    first = enrolled("", "alg", "omar", modified="2026-09-03")
    campus.take_in([first], users=[user("omar", enabledUser="false")])
    row = enrolled("e1", "alg", "omar", modified="2026-09-02", end="2026-12-20")
    modes = dict.fromkeys(("classes", "enrollments", "users"), "bulk")
    campus.take_in([row], users=[user("omar")], modes=modes)
    assert campus.only("omar").ends_at == at("2026-12-20")


def test_who_holds_a_membership_that_its_terms_end_is_the_same_after_a_second_import(campus: Campus) -> None:
    campus.take_in([enrolled("e1", "alg", "maya")])
    over = klass("alg", termSourcedIds="summer")
    campus.take_in([enrolled("e2", "alg", "maya")], classes=[over], terms={"summer": "2026-09-30"})
    assert campus.only("maya").ends_at == at("2026-09-30")
