#!/usr/bin/env bash
# A failover, told while it happens: clicks come in, counts grow, a worker is killed and then the active master, and in the end the
# table is compared with what the topic holds, counted by Postgres alone.
#
#   deploy/demo/failover.sh          needs Docker with compose, on Linux; nothing else
#
# Exit code 0 if every count is equal, 1 if not or if something did not come back. The stack stays up; `docker compose
# --profile '*' down --volumes` takes it away. WORKERS=5 starts another number of workers, CLICKS_PER_SECOND=5000 sends more.
set -euo pipefail
cd "$(dirname "$0")/../.."

WORKERS=${WORKERS:-3}
export CLICKS_PER_SECOND=${CLICKS_PER_SECOND:-1000}
JOB=page_views
# As compose reads it: the shell's, or that of `.env`.
TOPIC=${CLICKS_TOPIC:-}
if [ -z "$TOPIC" ] && [ -e .env ]; then TOPIC=$(sed -n 's/^CLICKS_TOPIC=//p' .env | tail -n 1); fi
TOPIC=${TOPIC:-clicks_topic}
# How long anything may take before the demonstration gives up.
PATIENCE_SECONDS=90
# What lives says so more often.
HEARTBEAT_MS_MAX=2000

bold() { [ -t 1 ] && printf '\033[1m%s\033[0m\n' "$*" || printf '%s\n' "$*"; }
step() { printf '\n'; bold "$*"; }
say() { printf '  %s\n' "$*"; }
die() { printf 'failover: %s\n' "$*" >&2; exit 1; }

# Compose tells much while all goes well; what it said is shown only when it fails.
compose() {
  local said
  said=$(docker compose "$@" 2>&1) || die "docker compose $*: $(tail -n 3 <<<"$said")"
}

# Runs a verb inside whichever master lives.
millstream() {
  local service
  for service in master master-standby; do
    if [ -n "$(docker compose ps --quiet "$service")" ]; then
      docker compose exec -T "$service" millstream "$@"
      return
    fi
  done
  die "no master runs"
}

# A number or word of the job, by its name in `job --json`; empty where no master answers.
of_job() { millstream job $JOB --json 2>/dev/null | sed -n "s/^ *\"$1\": \"\\{0,1\\}\\([^\",]*\\)\"\\{0,1\\},\\{0,1\\}\$/\\1/p" | head -1; }

sql() { docker compose exec -T --env PGOPTIONS='-c client_min_messages=warning' postgres psql --username=millstream --no-align --tuples-only --quiet --command="$1"; }

counted() { sql "SELECT coalesce(sum(views), 0) FROM fact_page_views" 2>/dev/null || echo 0; }

now_ms() { date +%s%3N; }

# 1234567 as 1,234,567, whatever the locale.
grouped() { sed -E ':again; s/([0-9])([0-9]{3})($|,)/\1,\2\3/; t again' <<<"$1"; }

# wait_until WHAT COMMAND...: until the command succeeds.
wait_until() {
  local what=$1 end=$((SECONDS + PATIENCE_SECONDS))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || die "$what: not within $PATIENCE_SECONDS s"
    sleep 0.1
  done
}

epoch_is_after() { local epoch; epoch=$(of_job epoch); [ "${epoch:-0}" -gt "$1" ]; }
count_is_above() { [ "$(counted)" -gt "$1" ]; }
runs() { [ "$(of_job state)" = running ]; }
has_read_all() { [ "$(of_job lag_records)" = 0 ]; }
container_of() { docker compose ps --format '{{.Name}}' "$1" | sort | sed -n "${2:-1}p"; }

# Which of the two masters reigns.
active_master() {
  local service
  for service in master master-standby; do
    if docker compose exec -T "$service" millstream healthcheck --master 127.0.0.1:7070 2>/dev/null | grep -q 'serves$'; then
      echo "$service"
      return
    fi
  done
  die "no master reigns"
}

# What the counts come to for as long as it takes to see them grow.
watch_counts() {
  local before after
  before=$(counted)
  wait_until "counts that grow" count_is_above "$before"
  sleep 2
  after=$(counted)
  say "views counted: $(grouped "$after"), $(grouped $((after - before))) more than a moment ago"
}

# The newest trace of this name that began since then, in milliseconds; the collector is asked by bash alone. Its id comes first,
# those of traces that it is linked to behind it.
newest_trace() {
  local address=$1 name=$2 since_ms=$3 query
  query="service=millstream-master&operation=$name&limit=1&start=${since_ms}000&end=$(now_ms)000"
  (
    exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || exit
    printf 'GET /api/traces?%s HTTP/1.0\r\nHost: %s\r\n\r\n' "$query" "$address" >&3
    timeout 5 cat <&3
  ) 2>/dev/null | grep -o '"traceID":"[0-9a-f]*"' | sed -n '1s/.*:"\(.*\)"/\1/p'
}

# show_trace NAME SINCE: where to look at what has happened. A trace is sent when its last step is over, and a second later at most;
# that of a recovery begins with the last sign of life of what was killed, which is older than its death.
show_trace() {
  local name=$1 since_ms=$(($2 - HEARTBEAT_MS_MAX)) address trace end=$((SECONDS + 30))
  address=$(docker compose port jaeger 16686 2>/dev/null) || return 0
  [ -n "$address" ] || return 0
  until trace=$(newest_trace "$address" "$name" "$since_ms") && [ -n "$trace" ]; do
    if [ $SECONDS -ge $end ]; then
      say "traces: http://$address/search?service=millstream-master&lookback=1h&limit=20"
      return
    fi
    sleep 0.5
  done
  say "the trace of it, a $name: http://$address/trace/$trace"
}

begin() {
  step "1. A cluster of two masters and $WORKERS workers, with Kafka, Postgres and an object store"
  compose up --detach --wait --scale worker="$WORKERS"
  compose --profile clicks up --detach --no-recreate clicks
  if ! runs; then millstream submit jobs/page_views.sql --name $JOB | sed 's/^/  /'; fi
  wait_until "a first count" count_is_above 0
  watch_counts
}

# kill_and_wait CONTAINER WHAT: sets `began` to the moment, and `took` to the milliseconds until another epoch is committed.
kill_and_wait() {
  local epoch
  epoch=$(of_job epoch)
  began=$(now_ms)
  docker kill "$1" >/dev/null
  wait_until "$2" epoch_is_after "$epoch"
  took=$(($(now_ms) - began))
}

kill_worker() {
  local container began took
  container=$(container_of worker 2)
  step "2. SIGKILL to $container"
  kill_and_wait "$container" "an epoch after the worker's death"
  say "the next epoch was committed within $took ms, as seen from here;" \
    "from the master's discovery to the epoch it took $(of_job last_recovery_ms) ms"
  watch_counts
  show_trace recovery "$began"
}

kill_master() {
  local container began took
  container=$(container_of "$(active_master)")
  step "3. SIGKILL to the active master, $container"
  kill_and_wait "$container" "an epoch of the other master"
  say "the other reigns, and has committed an epoch within $took ms, as seen from here;" \
    "$(active_master) is the active one now"
  watch_counts
  show_trace takeover "$began"
}

come_back() {
  step "4. What was killed comes back"
  compose up --detach --wait --no-recreate --scale worker="$WORKERS"
  millstream workers | sed 's/^/  /'
}

# Reads the topic with Kafka's own tool into a table, and lets Postgres count: none of it is Millstream's.
compare() {
  local records unequal total
  step "5. The clicks are stopped, and every count is compared"
  compose --profile clicks stop clicks
  wait_until "the end of the topic" has_read_all
  millstream stop $JOB | sed 's/^/  /'
  sql "DROP TABLE IF EXISTS oracle_records; CREATE TABLE oracle_records (record TEXT)"
  docker compose exec -T kafka /opt/kafka/bin/kafka-console-consumer.sh --bootstrap-server=kafka:29092 \
    --topic="$TOPIC" --from-beginning --timeout-ms=10000 --isolation-level=read_committed 2>/dev/null |
    docker compose exec -T postgres psql --username=millstream --quiet \
      --command="COPY oracle_records FROM STDIN (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')"
  records=$(sql "SELECT count(*) FROM oracle_records")
  sql "DROP TABLE IF EXISTS oracle; CREATE TABLE oracle AS
    SELECT date_trunc('minute', (click->>'timestamp')::timestamp) AS window_start, click->>'url' AS url,
           count(DISTINCT click->>'eventid') AS views
    FROM (SELECT record::jsonb AS click FROM oracle_records) AS clicks
    WHERE click->>'action' = 'view' GROUP BY 1, 2"
  unequal=$(sql "SELECT count(*) FROM oracle FULL JOIN fact_page_views USING (window_start, url)
    WHERE oracle.views IS DISTINCT FROM fact_page_views.views")
  total=$(sql "SELECT count(*) FROM oracle")
  say "the topic holds $(grouped "$records") records; Postgres counts them into $(grouped "$total") pairs of page and minute"
  [ "$total" -gt 0 ] || die "there was nothing to compare"
  if [ "$unequal" != 0 ]; then
    sql "SELECT window_start, url, oracle.views AS oracle, fact_page_views.views AS millstream
      FROM oracle FULL JOIN fact_page_views USING (window_start, url)
      WHERE oracle.views IS DISTINCT FROM fact_page_views.views ORDER BY 1, 2 LIMIT 10"
    die "UNEQUAL: $unequal counts differ"
  fi
  bold "  equal: no click was lost, none was counted twice"
}

begin
kill_worker
kill_master
come_back
compare
