# A test of the plugin forgets what it has imported; the module that stays would differ from the one that
# `requests` imports later.
import http.cookiejar  # noqa: F401
