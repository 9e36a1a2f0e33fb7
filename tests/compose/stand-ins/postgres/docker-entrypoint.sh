#!/bin/bash
# What the public image's entrypoint does with POSTGRES_{USER,PASSWORD,DB,INITDB_ARGS,HOST_AUTH_METHOD}, the first three also as
# *_FILE, and with the scripts in /docker-entrypoint-initdb.d, which run once.
set -eo pipefail
[ "${1:0:1}" = - ] && set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chown -R postgres "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  exec gosu postgres "$0" "$@"
fi
for name in POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB; do
  file=${name}_FILE
  [ -z "${!file}" ] || export "$name=$(<"${!file}")"
done
user=${POSTGRES_USER:-postgres} db=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
    echo 'Error: POSTGRES_PASSWORD is not set' >&2; exit 1
  fi
  password=$(mktemp); printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
  initdb --username="$user" ${POSTGRES_PASSWORD:+--pwfile="$password"} $POSTGRES_INITDB_ARGS
  rm "$password"
  echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  # Scripts run before the network listens, so that a health check passes only after them.
  pg_ctl -w -o "-c listen_addresses=''" start
  [ "$db" = postgres ] || createdb -U "$user" "$db"
  run() { psql -v ON_ERROR_STOP=1 --no-password -U "$user" -d "$db" "$@"; }
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh) if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
      *.sql) run -f "$script" ;;
      *.sql.gz) gunzip -c "$script" | run ;;
    esac
  done
  pg_ctl -w -m fast stop
fi
exec "$@"
