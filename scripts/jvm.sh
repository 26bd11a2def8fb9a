# shellcheck shell=bash
# What kafka.sh, registry.sh, s3.sh and postgres.sh share; sourced, never run. They set $name, $goal (Maven's), $dir, $port, and say by
# functions what differs: `unpack` what Maven gave, whether it is `ready`, its `address`, and how to `become` it.
#
#   pom.xml + SHA256SUMS ──mvn──► NAME-VERSION.part.XXXX ──verified, renamed──► $THALWEG_CACHE/NAME-VERSION
#   DIR/pid              "PID START" of the process that `up` started; START tells a reused PID apart
#   DIR/log              what it printed
#
# A folder of jars is whole if and only if it holds a SHA256SUMS equal to the repository's: that file is put in last,
# before the rename. So a torn download is never taken for a whole one, a changed pin is fetched anew, and where all is
# there neither Maven nor the network is asked.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${THALWEG_CACHE:-$HOME/.cache/thalweg}
: "${name:?} ${goal:?}"
dir='' port='' wipe=''

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }

# The version is written down once, in the pom.
pinned_version() { sed -n 's|^  <version>\(.*\)</version>$|\1|p' "$here/jars/$1/pom.xml"; }

# By Maven, with checksums that must match, into the folder $2.
download() {
    mvn -q -B -C -Dstyle.color=never -f "$here/jars/$1/pom.xml" "$goal" -DoutputDirectory="$2" </dev/null >&2 ||
        die "Maven could not fetch $1; its own message is above"
}

# Sets $home to the folder of jars of $1, and fills it when it isn't whole. Safe to call from many processes at once.
fetch() {
    local version sums part
    version=$(pinned_version "$1")
    sums=$here/jars/$1/SHA256SUMS
    home=$cache/$1-$version
    if cmp -s "$sums" "$home/SHA256SUMS"; then return; fi
    "$here/setup.sh" java maven || exit 1
    mkdir -p "$cache"
    exec 9>"$home.lock"
    flock -n 9 || { say "waiting for another fetch of $1 $version"; flock 9; }
    if ! cmp -s "$sums" "$home/SHA256SUMS"; then
        say "fetching $1 $version by Maven into $home (once)"
        rm -rf "$home".part.* # of a fetch that was interrupted: this one holds the lock
        part=$(mktemp -d "$home.part.XXXXXX")
        download "$1" "$part"
        (cd "$part" && sha256sum --check --quiet --strict "$sums" >&2) ||
            die "what Maven gave is not what $sums names; if the change is wanted: $0 lock"
        unpack "$part"
        cp "$sums" "$part/SHA256SUMS"
        chmod 755 "$part"
        sync -f "$part"
        rm -rf "$home"
        mv -T "$part" "$home"
    fi
    exec 9>&-
}

# Writes SHA256SUMS from what Maven gives now: after a change of version in the pom.
lock() {
    local part
    "$here/setup.sh" java maven || exit 1
    part=$(mktemp -d)
    download "$1" "$part"
    (cd "$part" && LC_ALL=C sha256sum -- *) >"$here/jars/$1/SHA256SUMS"
    rm -rf "$part"
    say "wrote $here/jars/$1/SHA256SUMS"
}

# A port of the loopback that nothing listens on. Below the range that the kernel gives to outgoing connections.
free_port() {
    local port
    while :; do
        port=$((10000 + RANDOM % 22000))
        listens "$port" || break
    done
    echo "$port"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Start time of a process in clock ticks since boot: field 22 of its stat, counted after the name, which may hold blanks.
start_of() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    echo "${20}"
}

# Sets $pid and succeeds when the process that `up` started for $dir is still that process and runs.
running() {
    local start
    [ -f "$dir/pid" ] || return
    read -r pid start <"$dir/pid" || return
    [ "$(start_of "$pid")" = "$start" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$dir"
}

# Runs "$@" in a session of its own, waits until `ready` says so, and leaves the pid file. The caller holds fd 8.
start() {
    local deadline=$((SECONDS + ${THALWEG_START_SECONDS:-90}))
    listens "$port" && die "port $port is taken by a process that this script did not start; choose another: --port"
    setsid "$@" </dev/null >>"$dir/log" 2>&1 8>&- &
    pid=$!
    echo "$pid $(start_of "$pid")" >"$dir/pid"
    until ready; do
        # Not `running`: until the new process has called exec, its command line is still this script's.
        if ! kill -0 "$pid" 2>/dev/null; then
            rm -f "$dir/pid"
            tail -n 20 "$dir/log" >&2
            die "it ended while starting; the end of $dir/log is above"
        fi
        if ((SECONDS > deadline)); then
            stop
            die "not ready in time; see $dir/log"
        fi
        sleep 0.1
    done
}

# Stops what `start` started, and nothing else. Asks first, and ends it after 30 seconds.
stop() {
    local tenths=0
    if running; then
        kill -s "${stop_signal:-TERM}" "$pid"
        while running; do
            if ((++tenths == 300)); then
                say "process $pid did not stop within 30 s: killed"
                kill -9 "$pid"
            fi
            sleep 0.1
        done
    fi
    rm -f "$dir/pid"
}

# One `up` or `down` at a time for a folder.
hold_dir() {
    exec 8>"$dir/lock"
    flock 8
}

# What stands at the head of the script.
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }

# $port and $dir, once the options are read.
check_place() {
    case $port in '' | *[!0-9]* | 0) die "--port $port: not a port number" ;; esac
    dir=$(realpath -m -- "${dir:-$cache/run/$name-$port}")
}

# All that it takes to start; with --check Java is not installed where it is missing, but told of.
prepare() {
    "$here/setup.sh" "$@" java || exit 1
    fetch "$name"
    mkdir -p "$dir"
}

# The commands that are alike for both.
run_command() {
    case $1 in
        down)
            [ -d "$dir" ] || exit 0
            hold_dir
            stop
            if [ -n "$wipe" ]; then rm -rf "$dir"; fi
            ;;
        status)
            if running && ready; then echo "up: $(address), pid $pid, data in $dir"; else echo "down"; exit 3; fi
            ;;
        env) echo "export THALWEG_${name^^}=$(address)" ;;
        fetch)
            fetch "$name"
            echo "$home"
            ;;
        exec)
            prepare --check
            become
            ;;
        lock) lock "$name" ;;
        *) usage ;;
    esac
}
