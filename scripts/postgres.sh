#!/usr/bin/env bash
# Postgres for development and tests: one server on 127.0.0.1, by the distribution's own packages.
#
#   scripts/postgres.sh up     [--port 5433] [--dir DIR] [--set KEY=VALUE]…  start, wait until it serves, print its URL
#   scripts/postgres.sh down   [--port 5433] [--dir DIR] [--wipe]            stop what `up` started; --wipe: and its data
#   scripts/postgres.sh status [--port 5433] [--dir DIR]                     exit 0 when it runs and serves, else 3
#   scripts/postgres.sh env    [--port 5433]                                 shell lines that point Thalweg at it
#   scripts/postgres.sh fetch                                                only install it, print the folder of its programs
#   scripts/postgres.sh exec   --port N [--dir DIR] [--set KEY=VALUE]…       run in the foreground (tests: exec'd, so that a
#                                                                            signal to this process is one to the server)
#
# The database `thalweg` belongs to the user `thalweg`, whose password is `thalweg-secret`; both are made at the folder's
# first start. It listens on 127.0.0.2 as well, of which its certificate says nothing. Data are in DIR/data (default DIR:
# $THALWEG_CACHE/run/postgres-PORT; of root, /var/tmp/thalweg/postgres-PORT) and outlive `down`. Postgres refuses to run
# as root: there it runs as the user `postgres`, or else `nobody`. TLS is on, by a certificate for 127.0.0.1 and
# localhost that an authority of the folder's own has signed: DIR/ca.pem.
set -euo pipefail
name=postgres
goal=none
# "Smart", as SIGTERM is to Postgres, would wait for all clients.
# shellcheck disable=SC2034
stop_signal=INT
# shellcheck source=scripts/jvm.sh
. "$(dirname "$0")/jvm.sh"

# The newest of the versions that are installed.
programs() { find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1; }

install() {
    "$here/setup.sh" "$@" postgres || exit 1
    bin=$(programs)
}

address() { echo "postgresql://thalweg@127.0.0.1:$port/thalweg"; }

ready() { "${bin:=$(programs)}/pg_isready" -q -h 127.0.0.1 -p "$port" -t 2; }

# Who the server runs as: not root, and somebody who is there.
owner() {
    if [ "$(id -u)" != 0 ]; then id -un; elif id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}

# Becomes that user, without a process between: a signal to this process is one to the server.
as_owner() {
    if [ "$(id -u)" != 0 ]; then exec "$@"; fi
    cd / # as that user may not be where this was called
    # Changing users drops the wish to die with the parent, which tests have.
    exec setpriv --pdeathsig keep --reuid "$(owner)" --regid "$(id -g "$(owner)")" --clear-groups env HOME=/ "$@"
}

make_certificates() {
    local subject=/CN=thalweg-authority
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "$subject" -keyout "$dir/ca.key" -out "$dir/ca.pem"
    openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout "$dir/server.key" -out "$dir/server.csr"
    printf 'subjectAltName=IP:127.0.0.1,DNS:localhost\n' >"$dir/server.ext"
    openssl x509 -req -days 3650 -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial \
        -extfile "$dir/server.ext" -out "$dir/server.pem"
}

# Makes the cluster of a folder, once.
make_cluster() {
    [ ! -f "$dir/made" ] || return 0
    rm -rf "$dir/data"
    mkdir -p "$dir/data"
    make_certificates >/dev/null 2>>"$dir/log"
    echo thalweg-secret >"$dir/password"
    if [ "$(id -u)" = 0 ]; then
        chown "$(owner)" "$dir/data" "$dir/server.key" "$dir/password"
        # A folder of root's alone is one that the server could not get to.
        chmod 755 "$dir"
    fi
    chmod 600 "$dir/server.key" "$dir/password"
    (as_owner "$bin/initdb" -D "$dir/data" -U thalweg --pwfile "$dir/password" -A scram-sha-256 -E UTF8 --locale=C \
        --no-sync >/dev/null)
    printf 'CREATE DATABASE thalweg' |
        (as_owner "$bin/postgres" --single -D "$dir/data" -c fsync=off postgres >/dev/null)
    touch "$dir/made"
}

# Processes of a server that was killed end by themselves, a moment later; until then the next one can't start.
wait_for_backends() {
    local tenths=0 left
    while [ -f "$dir/data/postmaster.pid" ] && ((++tenths < 100)); do
        left=$(find /proc -maxdepth 2 -name cwd -lname "$dir/data" -print -quit 2>/dev/null || true)
        [ -n "$left" ] || kill -0 "$(head -n 1 "$dir/data/postmaster.pid")" 2>/dev/null || return 0
        sleep 0.1
    done
}

# Settings for a server that is small and alone. fsync stays on: what it has said to be committed survives.
become() {
    local args=(-D "$dir/data" -p "$port" -c "listen_addresses=127.0.0.1,127.0.0.2" -c unix_socket_directories= -c ssl=on
        -c "ssl_cert_file=$dir/server.pem" -c "ssl_key_file=$dir/server.key" -c max_connections=100
        -c shared_buffers=64MB -c wal_level=logical -c log_min_messages=warning)
    for setting in "${settings[@]}"; do args+=(-c "$setting"); done
    make_cluster
    wait_for_backends
    as_owner "$bin/postgres" "${args[@]}"
}

command=${1:-}; [ $# -gt 0 ] && shift
port=5433 dir='' wipe='' settings=()
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=${2:?--port needs a number}; shift 2 ;;
        --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
        --set) settings+=("${2:?--set needs KEY=VALUE}"); shift 2 ;;
        --wipe) wipe=yes; shift ;;
        *) usage ;;
    esac
done
# Root's own cache is where the server's user can't go.
if [ -z "$dir" ] && [ "$(id -u)" = 0 ] && [ -z "${THALWEG_CACHE:-}" ]; then dir=/var/tmp/thalweg/postgres-$port; fi
check_place

case $command in
    up)
        install
        mkdir -p "$dir"
        hold_dir
        if ! running; then
            say "starting Postgres on 127.0.0.1:$port, data in $dir"
            args=(); for setting in "${settings[@]}"; do args+=(--set "$setting"); done
            start "$here/postgres.sh" exec --port "$port" --dir "$dir" "${args[@]}"
        elif ! ready; then
            die "a server already runs on $dir, at another port; stop it first: $0 down --dir $dir"
        fi
        address
        ;;
    env)
        echo "export THALWEG_POSTGRES_URL=$(address) THALWEG_POSTGRES_PASSWORD=thalweg-secret"
        echo "export THALWEG_POSTGRES_CA_FILE=$dir/ca.pem"
        ;;
    fetch)
        install
        echo "$bin"
        ;;
    exec)
        install --check
        become
        ;;
    lock) usage ;;
    *) run_command "$command" ;;
esac
