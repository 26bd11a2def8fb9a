#!/usr/bin/env bash
# Apicurio Registry for development and tests: a schema registry that speaks Confluent's API, on 127.0.0.1.
#
#   scripts/registry.sh up     [--port 8081] [--dir DIR]           start, wait until it serves, print its URL
#   scripts/registry.sh down   [--port 8081] [--dir DIR] [--wipe]  stop what `up` started; --wipe: and its data
#   scripts/registry.sh status [--port 8081] [--dir DIR]           exit 0 when it runs and serves, else 3
#   scripts/registry.sh env    [--port 8081]                       shell lines that point Thalweg at it
#   scripts/registry.sh fetch                                      only fill the cache, print its folder
#   scripts/registry.sh exec   --port N [--dir DIR]                run in the foreground (for tests)
#   scripts/registry.sh lock                                       after a change of version: rewrite SHA256SUMS
#
# Schemas are kept in a file of DIR (default: $THALWEG_CACHE/run/registry-PORT), because the topics that name their ids
# outlive `down` too. `up` sets compatibility to BACKWARD, as Confluent's own registry has it; Apicurio's is NONE.
set -euo pipefail
name=registry
goal=dependency:copy
# shellcheck source=scripts/jvm.sh
. "$(dirname "$0")/jvm.sh"

unpack() { (cd "$1" && tar -xzf ./*.tar.gz && rm ./*.tar.gz); }

address() { echo "http://127.0.0.1:$port/apis/ccompat/v7"; }

# Prints the first line of the answer: METHOD PATH [BODY].
request() {
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port" || exit
    printf '%s /apis/ccompat/v7%s HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n' "$1" "$2" >&3
    printf 'Content-Length: %d\r\n\r\n%s' "${#3}" "$3" >&3
    timeout 10 head -n 1 <&3
}

# The list of subjects is answered with 200: the storage behind the API is open.
ready() { [[ $(request GET /subjects '') == *' 200 '* ]]; }

# Once for a folder: a level that somebody chose later stays.
set_compatibility() {
    [ ! -f "$dir/configured" ] || return 0
    [[ $(request PUT /config '{"compatibility":"BACKWARD"}') == *' 200 '* ]] || die "it refused to set compatibility"
    touch "$dir/configured"
}

become() {
    local jvm
    mkdir -p "$dir/tmp"
    read -ra jvm <<<"${THALWEG_REGISTRY_JVM:--Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1}"
    exec java "${jvm[@]}" "-Dthalweg.dir=$dir" "-Djava.io.tmpdir=$dir/tmp" \
        -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$port" \
        -Dquarkus.management.host=127.0.0.1 -Dquarkus.management.port=0 \
        -Dapicurio.storage.kind=sql -Dapicurio.storage.sql.kind=h2 "-Dapicurio.datasource.url=jdbc:h2:file:$dir/registry;WRITE_DELAY=0" \
        -Dapicurio.datasource.username=sa -Dapicurio.datasource.password=sa \
        "-Dapicurio.import.work-dir=$dir/tmp" \
        -Dquarkus.http.access-log.enabled=false \
        -jar "$home/apicurio-registry-app-$(pinned_version registry)-runner.jar"
}

command=${1:-}; [ $# -gt 0 ] && shift
port=8081 dir='' wipe=''
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=${2:?--port needs a number}; shift 2 ;;
        --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
        --wipe) wipe=yes; shift ;;
        *) usage ;;
    esac
done
check_place

case $command in
    up)
        prepare
        hold_dir
        if ! running; then
            say "starting Apicurio Registry $(pinned_version registry) on $(address), data in $dir"
            start "$here/registry.sh" exec --port "$port" --dir "$dir"
            set_compatibility
        elif ! ready; then
            die "a registry already runs on $dir, at another port; stop it first: $0 down --dir $dir"
        fi
        address
        ;;
    *) run_command "$command" ;;
esac
