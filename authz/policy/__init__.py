"""The rules: load and validate, compile, decide. The only package that knows Casbin."""
