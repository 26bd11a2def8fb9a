#!/usr/bin/env bash
# DuckDB for tests: its command line, from PyPI. It answers the queries of NEXMark, to compare with.
#
#   scripts/duckdb.sh fetch                          only fill the cache, print the path of the program
#   scripts/duckdb.sh exec ARGUMENTS…                run it
#
# $THALWEG_CACHE/duckdb-VERSION is whole if and only if it holds a copy of pypi/duckdb.txt, which pins version and
# checksums: that file is put in last, before the folder gets its name. Where it is there, the network is not asked.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pinned=$here/pypi/duckdb.txt
cache=${THALWEG_CACHE:-$HOME/.cache/thalweg}
home=$cache/duckdb-$(sed -n 's/^duckdb-cli==\([0-9.]*\).*/\1/p' "$pinned")

say() { printf 'duckdb: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }

# Safe to call from many processes at once.
fetch() {
    local part
    if cmp -s "$pinned" "$home/duckdb.txt"; then return; fi
    "$here/setup.sh" python || exit 1
    mkdir -p "$cache"
    exec 9>"$home.lock"
    flock -n 9 || { say "waiting for another fetch"; flock 9; }
    if ! cmp -s "$pinned" "$home/duckdb.txt"; then
        say "fetching it by pip into $home (once)"
        rm -rf "$home".part.* # of a fetch that was interrupted: this one holds the lock
        part=$(mktemp -d "$home.part.XXXXXX")
        python3 -m venv "$part/venv"
        "$part/venv/bin/pip" download -q --disable-pip-version-check --no-deps --only-binary=:all: \
            --require-hashes -r "$pinned" -d "$part" </dev/null >&2 || die "pip could not fetch it; its own message is above"
        (cd "$part" && python3 -m zipfile -e ./*.whl . && mv duckdb_cli/duckdb duckdb && chmod 755 duckdb)
        rm -rf "$part/venv" "$part"/duckdb_cli* # the wheel, and what else it has
        cp "$pinned" "$part/duckdb.txt"
        chmod 755 "$part"
        sync -f "$part"
        rm -rf "$home"
        mv -T "$part" "$home"
    fi
    exec 9>&-
}

case ${1:-} in
    fetch)
        [ $# = 1 ] || usage
        fetch
        echo "$home/duckdb"
        ;;
    exec)
        shift
        fetch
        exec "$home/duckdb" "$@"
        ;;
    *) usage ;;
esac
