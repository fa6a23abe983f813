"""How many examples a property is held to, in CI and in a long run.

The examples of CI follow from the test alone, so that a change fails for what it changes and not by chance:
a third of the count that a test names, since CI has minutes. `make test-fast` takes a fifth of those.
`make test-long` draws other examples each time, forty times the count; what it finds becomes a case of its
own. The profile is the value of `HYPOTHESIS_PROFILE`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COUNT = 100
# Neither a deadline nor a health check: a busy machine is no fault.
_ANY_MACHINE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
"""Whether tests that kill, flood or load a service do so often and for long, and not for one round."""


def examples(count: int) -> settings:
    """Hold a property to `count` examples, or to more or fewer as the profile has it."""
    return settings(max_examples=max(1, count * settings().max_examples // _COUNT))


settings.register_profile("ci", _ANY_MACHINE, max_examples=_COUNT // 3, derandomize=True, database=None)
settings.register_profile("fast", settings.get_profile("ci"), max_examples=_COUNT // 10)
settings.register_profile("long", _ANY_MACHINE, max_examples=_COUNT * 40, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
