"""The source of truth in SQL. The only package that knows SQLAlchemy."""
