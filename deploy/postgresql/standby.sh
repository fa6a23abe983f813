#!/bin/sh
# Copies the primary, unless this folder already is a copy, and then runs the command that is given: postgres.
# As the user postgres. The copy knows from whom it goes on copying.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  PGPASSWORD=$(cat "$REPLICATOR_PASSWORD_FILE")
  export PGPASSWORD
  primary="host=$PRIMARY_HOST port=${PRIMARY_PORT:-5432} user=replicator application_name=standby1"
  until pg_basebackup --pgdata="$PGDATA" --dbname="$primary" --write-recovery-conf --checkpoint=fast; do
    echo "no copy yet; trying again" >&2
    sleep 1
  done
  unset PGPASSWORD
  chmod 0700 "$PGDATA"
fi
exec "$@"
