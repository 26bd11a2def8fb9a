#!/usr/bin/env bash
# Debezium for tests: a worker of Kafka Connect with the Postgres connector on 127.0.0.1, and the database that it reads.
#
#   scripts/debezium.sh exec --port N [--dir DIR] --kafka HOST:PORT [--set KEY=VALUE]… CONNECTOR.properties…
#                                                    run the worker in the foreground; N is the port of its REST API
#   scripts/debezium.sh exec --port N [--dir DIR] --database
#                                                    run Postgres in the foreground instead: user, database: postgres
#   scripts/debezium.sh fetch                        only fill the cache, print the plugin's folder
#   scripts/debezium.sh lock                         after a change of version: rewrite SHA256SUMS
#
# The worker's offsets stand in DIR/offsets, so that it goes on after kill -9 where it last flushed them. Connectors are
# given as files: a standalone worker forgets those that were made by its API. Postgres comes from the system (apt:
# postgresql), runs as the user postgres where this script runs as root, and trusts all who connect from this machine.
set -euo pipefail
name=debezium
goal=dependency:copy
# shellcheck source=scripts/jvm.sh
. "$(dirname "$0")/jvm.sh"

# Not strictly: the repository has no checksum of this file. What SHA256SUMS names is all that is taken.
download() {
    mvn -q -B -Dstyle.color=never -f "$here/jars/$1/pom.xml" "$goal" -DoutputDirectory="$2" </dev/null >&2 ||
        die "Maven could not fetch $1; its own message is above"
}

unpack() { (cd "$1" && tar -xzf ./*.tar.gz && rm ./*.tar.gz); }

address() { echo "http://127.0.0.1:$port"; }

ready() { listens "$port"; }

write_worker() {
    cat <<END
bootstrap.servers=$kafka
listeners=http://127.0.0.1:$port
plugin.path=$home
plugin.discovery=service_load
offset.storage.file.filename=$dir/offsets
offset.flush.interval.ms=1000
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
topic.creation.enable=true
producer.linger.ms=5
END
    printf '%s\n' "${settings[@]}" # of two lines for one key the last one counts
}

# Becomes the worker. Connect itself is among Kafka's jars.
become_connect() {
    local jvm plugins
    fetch kafka
    local jars=$home
    fetch debezium
    plugins=$home
    home=$plugins
    read -ra jvm <<<"${THALWEG_CONNECT_JVM:--Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1}"
    write_worker >"$dir/worker.properties"
    exec java "${jvm[@]}" "-Dthalweg.dir=$dir" "-Dlog4j2.configurationFile=$here/jars/kafka/log4j2.properties" \
        -cp "$jars/*" org.apache.kafka.connect.cli.ConnectStandalone "$dir/worker.properties" "${connectors[@]}"
}

# Becomes Postgres, with what logical replication takes.
become_database() {
    local bin run=()
    "$here/setup.sh" --check postgres || exit 1
    bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$dir"
        # Changing users drops the wish to die with the parent, which tests have.
        run=(setpriv --pdeathsig keep --reuid=postgres --regid=postgres --clear-groups)
    fi
    [ -f "$dir/data/PG_VERSION" ] ||
        "${run[@]}" "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >/dev/null
    rm -f "$dir/data/postmaster.pid" # of one that was killed: the folder is this script's alone
    exec "${run[@]}" "$bin/postgres" -D "$dir/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c "unix_socket_directories=" -c wal_level=logical -c max_connections=20 -c shared_buffers=32MB
}

become() { if [ -n "$database" ]; then become_database; else become_connect; fi; }

command=${1:-}; [ $# -gt 0 ] && shift
port=8083 dir='' wipe='' kafka=127.0.0.1:9092 database='' settings=() connectors=()
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=${2:?--port needs a number}; shift 2 ;;
        --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
        --kafka) kafka=${2:?--kafka needs HOST:PORT}; shift 2 ;;
        --set) settings+=("${2:?--set needs KEY=VALUE}"); shift 2 ;;
        --database) database=yes; shift ;;
        --*) usage ;;
        *) connectors+=("$1"); shift ;;
    esac
done
check_place

case $command in
    exec)
        mkdir -p "$dir"
        [ -n "$database" ] || "$here/setup.sh" --check java
        become
        ;;
    fetch | lock) run_command "$command" ;;
    *) usage ;;
esac
