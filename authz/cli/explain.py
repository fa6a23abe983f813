"""`authz explain`: an answer with all that led to it, as a tree."""

from __future__ import annotations

import typer

from authz.cli.check import DENIED_EXIT_CODE, Stated
from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_of_denial
from authz.cli.options import Action, AskedResource, AsOf, Who
from authz.cli.output import print_json


@on_server()
def explain(
    context: Context,
    subject: Who,
    action: Action,
    resource: AskedResource,
    stated: Stated,
    as_of: AsOf = None,
) -> None:
    """Explain one check: why it is allowed or denied, and what would allow it. Exit codes as `check`."""
    explanation = context.client.explain(subject, action, resource, **stated, as_of=as_of)
    if context.as_json:
        print_json(explanation)
    else:
        from authz.cli.explanation_tree import print_tree

        print_tree(explanation)
    note_of_denial(context.client, explanation.answer.reason, subject, stated)
    if not explanation:
        raise typer.Exit(DENIED_EXIT_CODE)
