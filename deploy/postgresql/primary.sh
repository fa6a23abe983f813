#!/bin/sh
# Prepares a new cluster, once, while only this machine reaches it: the database of the service, and who may copy.
# The image of PostgreSQL runs what is in /docker-entrypoint-initdb.d.
set -eu
AUTHZ_PASSWORD=$(cat "$AUTHZ_PASSWORD_FILE") REPLICATOR_PASSWORD=$(cat "$REPLICATOR_PASSWORD_FILE") \
  psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
\getenv authz AUTHZ_PASSWORD
\getenv replicator REPLICATOR_PASSWORD
CREATE ROLE authz LOGIN PASSWORD :'authz';
CREATE DATABASE authz OWNER authz ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
SQL
echo "include '${CONFIG:-/config}/replicated.conf'" >> "$PGDATA/postgresql.conf"
echo "host replication replicator all scram-sha-256" >> "$PGDATA/pg_hba.conf"
