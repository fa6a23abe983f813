#!/bin/sh
# Makes this standby the primary. First make sure that the old primary does not run and cannot start: it would take
# writes that nobody else has. Run it in the container of the standby, as the user postgres.
set -eu
pg_ctl promote --pgdata="$PGDATA" --wait
# There is no other standby yet for which commits could wait.
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres \
  --command="ALTER SYSTEM SET synchronous_standby_names = ''" --command="SELECT pg_reload_conf()"
