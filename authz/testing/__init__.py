"""For the tests of applications: the real service in a test session, and assertions about access.

pytest finds the plugin, `authz.testing.plugin`, by itself. This package imports nothing: pytest loads it in
every session, also of those who do not use it.
"""
