"""Policies: load, validate, compile, evaluate. The only package that imports Casbin."""
