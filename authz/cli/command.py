"""Commands that call a server: the options that all of them have, and what they print."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import chain
from typing import Annotated, Any, Concatenate, NamedTuple, TypeAlias, TypeVar, get_args

import grpc
import typer

from authz.cli.connection import connect, server_options
from authz.cli.errors import in_flags, message_of
from authz.cli.options import Reason
from authz.cli.output import cell_text, print_json, print_rows
from authz.client import CallError, Client
from authz.domain.entities import KINDS, CourseKey, Filter, Key, SessionKey
from authz.domain.errors import AuthzError
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition

ItemT = TypeVar("ItemT")

_COLUMNS = {
    "course": ("id", "state", "ai_enabled"),
    "membership": ("subject", "scope", "role", "status", "starts_at", "ends_at", "suspended_until", "source"),
    "resource": ("key", "scope", "owner", "visibility", "published"),
    "access_token": ("id", "subject", "ends_at"),
}
"""What a list prints of a record of a kind, if that is not every field."""
_COLUMNS_OF_FILTER = {
    kind.filter_type: _COLUMNS.get(kind.name, kind.entity.__struct_fields__) for kind in KINDS.values()
}


class Context:
    """How a command was called: its client, the reason for what it writes, and how it prints.

    `database` is the URL of the database over which it runs; empty when it calls a server.
    """

    def __init__(self, connected: Callable[[], Client], *, database: str, as_json: bool, reason: str) -> None:
        self._connected = connected
        self.database = database
        self.as_json = as_json
        self.reason = reason

    @cached_property
    def client(self) -> Client:
        """A client, connected when first used: a command about files needs no server."""
        return self._connected()

    def list(self, wanted: Filter[Any]) -> int:
        """Print the records that a filter finds. Returns their number."""
        columns = _COLUMNS_OF_FILTER[type(wanted)]
        headings = ["resource" if column == "key" else column for column in columns]
        return self.show(
            headings,
            self.client.read(wanted),
            lambda versioned: [cell_text(getattr(versioned.entity, name), name) for name in columns],
        )

    def show(
        self,
        headings: Sequence[str],
        items: Iterable[ItemT],
        cells_of: Callable[[ItemT], Sequence[str]],
        whole: Callable[[ItemT], object] = lambda item: item,
    ) -> int:
        """Print items, each as a row of cells, or with --json as a line that has all its fields, those that
        `whole` gives.

        A line is printed when its item comes, and rows when all have come, because columns are aligned.
        Returns the number of items.
        """
        if not self.as_json:
            rows = [cells_of(item) for item in items]
            print_rows(headings, rows)
            return len(rows)
        printed = 0
        for item in items:
            print_json(whole(item))
            printed += 1
        return printed

    def write(self, mutations: Iterable[Mutation], wanted: Filter[Any]) -> None:
        """Write the mutations, if any, then print the records that a filter finds."""
        given = [*mutations]
        if given:
            self.client.write(given, reason=self.reason)
        try:
            self.list(wanted)
        except CallError as error:
            if not given or error.code is not grpc.StatusCode.PERMISSION_DENIED:
                raise
            print("note: written; this caller has no permission to read the record", file=sys.stderr)

    def delete(self, key: Key, *, confirmed: bool) -> None:
        """Delete a record that exists, once a person has confirmed it."""
        if not confirmed:
            contents = " with everything in it" if isinstance(key, CourseKey | SessionKey) else ""
            typer.confirm(f"Delete {key}{contents}?", abort=True, err=True)
        deletion, there = Mutation(Operation.DELETE, key), Precondition(key, Expectation.EXISTS)
        self.client.write([deletion], preconditions=[there], reason=self.reason)
        self.print_deleted(key, f"deleted {key}")

    def print_deleted(self, what: object, text: str) -> None:
        """Print that something is deleted: as a text or, with --json, by its key."""
        if self.as_json:
            print_json({"deleted": what})
        else:
            print(text)


Command: TypeAlias = "Callable[Concatenate[Context, ...], None]"


class OptionGroup(NamedTuple):
    """In the annotation of a parameter of a command: the parameter stands for the options that `read` takes,
    and its value is what `read` returns."""

    read: Callable[..., Any]


def on_server(
    app: typer.Typer | None = None,
    name: str | None = None,
    *,
    writes: bool = False,
    creates: bool = False,
    prints_json: bool = True,
) -> Callable[[Command], Callable[..., None]]:
    """Give a command a `Context` as its first argument, from the options that this adds to its own.

    Adds it to `app`, if there is one, under `name`, by default that of the function. One that `writes` may
    say why. One that `creates` makes the database of `--database` if there is none. One that only says what
    it did has no `--json`.
    """
    left_out = {"reason": not writes, "as_json": not prints_json}

    def decorate(command: Command) -> Callable[..., None]:
        def run(*, invoked: typer.Context, as_json: bool = False, reason: str = "", **given: Any) -> None:
            reach = {each.name: given.pop(each.name) for each in reaching}
            with _naming_flags(invoked), ExitStack() as stack:
                connection = connect(creates=creates, **reach)
                context = Context(
                    lambda: stack.enter_context(connection),
                    database=reach["database"],
                    as_json=as_json,
                    reason=reason,
                )
                command(context, **{each.name: _value_of(each, given) for each in own})

        _, *own = _parameters_of(command)
        invoked, *more = _parameters_of(_options)
        reaching = _parameters_of(server_options)
        shared = [each for each in more if not left_out[each.name]] + reaching
        _describe(run, command, [invoked, *chain.from_iterable(map(_options_of, own)), *shared])
        return run if app is None else app.command(name)(run)

    return decorate


def _describe(run: Any, command: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> None:
    """Give a function what typer reads: the name and the help of a command, and its parameters."""
    run.__name__ = command.__name__
    run.__doc__ = inspect.getdoc(command)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__signature__ = inspect.Signature(
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )


@contextmanager
def _naming_flags(invoked: typer.Context) -> Iterator[None]:
    """Let an error name the options of the command in place of the fields of the API."""
    try:
        yield
    except AuthzError as error:
        flags = {flag for each in invoked.command.params for flag in each.opts}
        raise ValueError(in_flags(message_of(error), flags)) from error


def _options(
    invoked: typer.Context,
    reason: Reason = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a line for an answer, or for each item of a list.")
    ] = False,
) -> None:
    """The options of commands that call a server, besides `server_options`."""


def _parameters_of(command: Callable[..., Any]) -> list[inspect.Parameter]:
    return [*inspect.signature(command, eval_str=True).parameters.values()]


def _options_of(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """Those that a parameter stands for: itself, or those of its group."""
    group = _group_of(parameter)
    return [parameter] if group is None else _parameters_of(group.read)


def _value_of(parameter: inspect.Parameter, given: Mapping[str, Any]) -> Any:
    group = _group_of(parameter)
    if group is None:
        return given[parameter.name]
    return group.read(**{each.name: given[each.name] for each in _options_of(parameter)})


def _group_of(parameter: inspect.Parameter) -> OptionGroup | None:
    return next((each for each in get_args(parameter.annotation) if isinstance(each, OptionGroup)), None)
