"""The pytest plugin, as the tests of an application use it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

DIRECTORY = """
[directory]
courses = [{ id = "algebra", state = "ACTIVE" }, { id = "poetry", state = "ACTIVE" }]
sessions = [{ id = "reading", course_id = "poetry", state = "LIVE" }]
memberships = [
  { subject = "user:maya", role = "student", scope = "course:algebra" },
  { subject = "user:omar", role = "teacher", scope = "course:poetry" },
  { subject = "user:gita", role = "guest", scope = "session:reading" },
]
resources = [
  { type = "notebook", id = "nb", scope = "course:algebra", owner = "user:maya" },
  { type = "material", id = "exam", scope = "course:algebra", owner = "user:nadia" },
  { type = "material", id = "verse", scope = "course:poetry", owner = "user:omar", published = true },
]
"""
SETTINGS = """
[pytest]
authz_directory = campus.toml
"""


@pytest.fixture
def application(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with a directory and the settings for it."""
    pytester.makefile(".toml", campus=DIRECTORY)
    pytester.makeini(SETTINGS)
    return pytester


def test_assertions_hold_for_what_check_answers(application: pytest.Pytester) -> None:
    application.makepyfile("""
        from authz.client import Client

        def test_access(authz_service):
            answer = authz_service.assert_allowed("user:maya", "read", "notebook:nb")
            assert answer.reason == "ROLE_GRANT"
            authz_service.assert_denied("user:maya", "read", "material:verse", reason="NOT_A_MEMBER")
            authz_service.assert_denied("user:omar", "read", "notebook:nb", course_id="algebra")
            authz_service.assert_isolated("algebra", "poetry")
            with Client(authz_service.address) as application:
                assert application.check("user:maya", "read", "notebook:nb")
    """)
    application.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_failure_says_why_and_what_would_allow(application: pytest.Pytester) -> None:
    share = '{ resource = "notebook:nb", subject = "user:eve", level = "VIEWER" }'
    application.makefile(".toml", shares=f"{DIRECTORY}shares = [{share}]")
    application.makepyfile("""
        def test_denied(authz_service):
            authz_service.assert_allowed("user:maya", "read", "material:exam")

        def test_allowed(authz_service):
            authz_service.assert_denied("user:maya", "read", "notebook:nb")

        def test_other_reason(authz_service):
            authz_service.assert_denied("user:maya", "read", "material:exam", reason="NOT_A_MEMBER")

        def test_of_what_does_not_exist(authz_service):
            authz_service.assert_denied("user:maya", "read", "material:exma")

        def test_of_what_should_not_exist(authz_service):
            authz_service.assert_denied("user:maya", "read", "material:gone", reason="RESOURCE_UNKNOWN")

        def test_creating_nowhere(authz_service):
            authz_service.assert_denied("user:maya", "create", "notebook", course_id="algbera")

        def test_file_without_records(authz_service, tmp_path):
            (tmp_path / "empty.toml").write_text("courses = []")
            authz_service.load(tmp_path / "empty.toml")

        def test_file_that_the_service_refuses(authz_service):
            authz_service.load("shares.toml")

        def test_time_as_text(authz_service):
            authz_service.set_time("2100-07-01")

        def test_no_such_reason(authz_service):
            authz_service.assert_denied("user:omar", "read", "notebook:nb", reason="NOT_MEMBER")
    """)
    done = application.runpytest_inprocess()
    done.assert_outcomes(failed=9, passed=1)
    done.stdout.fnmatch_lines(
        [
            "E*user:maya may not read material:exam: CONDITION_NOT_MET (not published); it would be*",
            "E*user:maya may read notebook:nb: p, student, *, notebook, read, own, allow (default.csv:*)",
            "E*user:maya may not read material:exam: the reason is CONDITION_NOT_MET*, not NOT_A_MEMBER",
            'E*material:exma, or the course or session that it is in, is not registered;*"RESOURCE_UNKNOWN"',
            'E*notebook, or the course or session that it is in, is not registered;*"RESOURCE_UNKNOWN"',
            "E*directory is missing; the records are in a table of this name",
            "E*in *empty.toml",
            "E*CallError: *user:eve*",
            "E*in *shares.toml",
            "E*time is `'2100-07-01'`; give a datetime with a time zone",
            "E*reason is `NOT_MEMBER`; did you mean `NOT_A_MEMBER`?",
        ]
    )


def test_each_test_begins_with_the_same_directory_and_the_present(application: pytest.Pytester) -> None:
    application.makepyfile("""
        import datetime as dt
        import pytest
        from authz.domain.entities import Membership
        from authz.domain.ids import course_scope, parse_subject

        MEMBER = Membership(
            subject=parse_subject("user:new"), scope=course_scope("poetry"), role="student",
            ends_at=4_000_000_000_000_000,
        )

        @pytest.mark.parametrize("turn", [1, 2])
        def test_alone(authz_service, turn):
            authz_service.assert_denied("user:new", "read", "material:verse", reason="NOT_A_MEMBER")
            authz_service.write(MEMBER)
            authz_service.assert_allowed("user:new", "read", "material:verse")
            authz_service.set_time(dt.datetime(2097, 1, 1, tzinfo=dt.UTC))
            over = authz_service.assert_denied("user:new", "read", "material:verse")
            assert (over.reason, over.inactive_reason) == ("MEMBERSHIP_NOT_EFFECTIVE", "ENDED")
            with pytest.raises(ValueError, match="time runs forward only"):
                authz_service.set_time(dt.datetime(2096, 1, 1, tzinfo=dt.UTC))

        def test_the_past_is_refused(authz_service):
            with pytest.raises(ValueError, match="time runs forward only"):
                authz_service.set_time(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    """)
    application.runpytest_inprocess("-W", "error::authz.client.BareTouchWarning").assert_outcomes(passed=3)


def test_a_service_may_serve_a_whole_module(application: pytest.Pytester) -> None:
    application.makeini(SETTINGS + "authz_service_scope = module\n")
    application.makepyfile("""
        addresses = set()

        def test_one(authz_service):
            addresses.add(authz_service.address)

        def test_other(authz_service):
            assert addresses == {authz_service.address}
    """)
    application.runpytest_inprocess().assert_outcomes(passed=2)
    application.makeini(SETTINGS + "authz_service_scope = file\n")
    done = application.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*authz_service_scope is `file`; write one of function, class, *"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("authz_policy = rulse", "*authz_policy is `*rulse`, where there is no folder"),
        ("authz_directory = campsu.toml", "*authz_directory has `*campsu.toml`, where there is no file"),
    ],
)
def test_a_path_that_leads_nowhere_is_named_before_any_test(
    application: pytest.Pytester, setting: str, said: str
) -> None:
    application.makeini(f"[pytest]\n{setting}\n")
    done = application.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([said])


def test_the_policy_is_that_of_a_folder(application: pytest.Pytester, tmp_path: Path) -> None:
    from authz.policy.load import policy_directory

    folder = application.mkdir("rules")
    for file in policy_directory().iterdir():
        if file.is_file():
            (folder / file.name).write_text(file.read_text())
    rows = folder / "default.csv"
    kept = [line for line in rows.read_text().splitlines() if "student, *, notebook, read" not in line]
    rows.write_text("\n".join(kept) + "\n")
    application.makeini(SETTINGS + "authz_policy = rules\n")
    application.makepyfile("""
        def test_changed(authz_service):
            authz_service.assert_denied("user:maya", "read", "notebook:nb", reason="NO_RULE")
    """)
    application.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_session_that_does_not_use_it_does_not_import_the_service(application: pytest.Pytester) -> None:
    application.makepyfile("""
        import sys

        def test_nothing():
            assert "grpc" not in sys.modules
            assert "authz.client" not in sys.modules
    """)
    application.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_recording_finds_what_is_served_without_a_right(application: pytest.Pytester) -> None:
    application.makepyfile("""
        import asyncio
        import pytest
        from authz.client import AsyncClient, InvalidArgumentError

        def app_of(client):
            async def app(scope, receive, send):
                path, status = scope["path"], 200
                if path == "/guarded":
                    answer = await client.check("user:omar", "read", "notebook:nb")
                    status = 200 if answer else 403
                elif path == "/heedless":
                    await client.check("user:omar", "read", "notebook:nb")
                elif path == "/mistaken":
                    try:
                        await client.check("user:omar", "raed", "notebook:nb")
                    except Exception:
                        pass
                elif path == "/list":
                    listed = client.list_resources("user:omar", "update", "notebook")
                    assert not [each async for each in listed]
                elif path == "/records":
                    assert [each async for each in client.read_memberships()]
                elif path == "/elsewhere":
                    status = 307
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            return app

        async def visit(address, recording, paths):
            async with AsyncClient(address) as client:
                app = recording.app(app_of(client))
                async def send(message):
                    pass
                for path in paths:
                    await app({"type": "http", "method": "GET", "path": path}, None, send)

        def test_found(authz_service):
            paths = ["/guarded", "/list", "/elsewhere", "/open"]
            paths += ["/heedless", "/records", "/static/x", "/mistaken"]
            with authz_service.recording() as recording:
                asyncio.run(visit(authz_service.address, recording, paths))
            authz_service.client.check("user:maya", "read", "notebook:nb")
            assert [each.action for each in recording.questions] == ["read", "update", "read", "raed"]
            recording.assert_asked(public=["GET /static/*"])

        def test_nothing_to_judge(authz_service):
            with authz_service.recording() as recording:
                authz_service.client.check("user:maya", "read", "notebook:nb")
            recording.assert_asked()

        def test_other_servers(authz_service):
            with authz_service.recording() as recording:
                with recording.request("Notebooks/Read"):
                    authz_service.client.check("user:maya", "read", "notebook:nb")
                with pytest.raises(RuntimeError), recording.request("Notebooks/Break"):
                    raise RuntimeError
            recording.assert_asked()
            with pytest.raises(InvalidArgumentError, match="public is `'GET /static/\\*'`; give a list"):
                recording.assert_asked(public="GET /static/*")
    """)
    done = application.runpytest_inprocess()
    done.assert_outcomes(failed=2, passed=1)
    done.stdout.fnmatch_lines(
        [
            "E*served without a check that allowed it:",
            "E*  GET /open: nothing was checked",
            "E*  GET /heedless: user:omar may not read notebook:nb: NOT_A_MEMBER",
            "E*  GET /records: nothing was checked",
            "E*  GET /mistaken: user:omar may not raed notebook:nb: UNKNOWN_ACTION",
            "E*no request was recorded*",
        ]
    )
