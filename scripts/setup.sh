#!/usr/bin/env bash
# Installs what a bare Debian or Ubuntu lacks to build and test Thalweg. The one place that installs anything.
#
#   scripts/setup.sh [--check] [COMPONENT…]        default: build kafka
#
#   build   a C and C++ compiler and make (librdkafka, zlib, zstd and mimalloc are built from source), OpenSSL's headers and
#           pkg-config, by which they are found (TLS to Kafka and the registry); asks for cargo
#   java    a Java runtime, 17 or newer: the test broker, the schema registry and the object store
#   maven   Maven: fetches their jars, once
#   kafka   java and maven
#   postgres  a Postgres server, psql, and openssl, which makes its certificate
#   python  Python with its venv: fetches DuckDB, to which tests compare
#   lint    shellcheck, and typos from PyPI in an environment of its own
#
# Where all is there it prints nothing and is done at once. Where it may not install (no apt, or neither root nor sudo
# without a password), or with --check, it says what is missing and the command that gets it, and exits with 1.
set -euo pipefail

java_major_min=17
jre=openjdk-17-jre-headless # where a release has no 17: its default, if that is newer
typos_version=1.52.0
typos_dir=${THALWEG_CACHE:-$HOME/.cache/thalweg}/typos
missing=()  # in words
packages=() # of Debian

need() {
    missing+=("$1")
    packages+=("${@:2}")
}

have() { command -v "$1" >/dev/null 2>&1; }

# The major version of the Java in the PATH, from the file that every JDK and JRE carries: starting one takes 40 ms or more.
java_major() {
    local home line
    home=$(readlink -f "$(command -v java)")
    home=${home%/bin/java}
    if [ -r "$home/release" ]; then
        while IFS= read -r line; do
            if [[ $line =~ ^JAVA_VERSION=\"([0-9]+) ]]; then echo "${BASH_REMATCH[1]}"; return; fi
        done <"$home/release"
    fi
    java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1
}

check_build() {
    have cc || need "a C compiler (cc)" gcc libc6-dev
    have c++ || need "a C++ compiler (c++)" g++
    have make || need "make" make
    have pkg-config || need "pkg-config" pkg-config
    has_openssl || need "OpenSSL's headers" libssl-dev
}

# Asked of the compiler, as pkg-config may be what is missing.
has_openssl() { have cc && echo '#include <openssl/ssl.h>' | cc -E - >/dev/null 2>&1; }

check_cargo() {
    have cargo || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] && return
    cat >&2 <<'END'
setup: cargo is missing. Get Rust by rustup (https://rustup.rs), which then picks the version in rust-toolchain.toml:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
END
    cargo_missing=yes
}

check_java() {
    local major
    if have java; then
        major=$(java_major)
        [ "${major:-0}" -ge "$java_major_min" ] ||
            need "Java $java_major_min or newer (found ${major:-an unknown version})" "$jre"
    else
        need "Java $java_major_min or newer" "$jre"
    fi
}

check_typos() {
    if have typos || [ -x "$typos_dir/bin/typos" ]; then return; fi
    typos_missing=yes
    check_python
}

check_python() {
    have python3 || need "Python" python3
    python3 -c 'import ensurepip' >/dev/null 2>&1 || need "Python's venv" python3-venv
}

# Debian keeps the server's programs out of the PATH.
check_postgres() {
    { have psql && compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; } || need "Postgres" postgresql
    have openssl || need "openssl" openssl
    have setpriv || need "setpriv" util-linux
}

check=''
cargo_missing=''
typos_missing=''
[ "${1:-}" = --check ] && { check=yes; shift; }
[ $# -gt 0 ] || set -- build kafka
for component; do
    case $component in
        build) check_build; check_cargo ;;
        java) check_java ;;
        maven) have mvn || need "Maven (mvn)" maven ;;
        kafka) check_java; have mvn || need "Maven (mvn)" maven ;;
        postgres) check_postgres ;;
        python) check_python ;;
        lint) have shellcheck || need "shellcheck" shellcheck; check_typos ;;
        *) echo "setup: unknown component '$component': build, java, maven, kafka, postgres, python or lint" >&2; exit 2 ;;
    esac
done

if [ ${#packages[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" != 0 ]; then as_root=(sudo -n); fi
    if [ -n "$check" ] || ! have apt-get || { [ ${#as_root[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; }; then
        printf 'setup: missing: %s\n' "${missing[@]}" >&2
        if have apt-get; then
            echo "setup: get it by: ${as_root[0]:+sudo }apt-get install ${packages[*]}" >&2
        else
            echo "setup: this is no Debian or Ubuntu; the packages are named like these: ${packages[*]}" >&2
        fi
        exit 1
    fi
    echo "setup: installing ${packages[*]} (missing: $(IFS=,; echo "${missing[*]}"))" >&2
    log=$(mktemp)
    if ! {
        "${as_root[@]}" apt-get update -q </dev/null &&
            if ! apt-cache show "$jre" >/dev/null 2>&1; then packages=("${packages[@]/$jre/default-jre-headless}"); fi &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -q -y --no-install-recommends "${packages[@]}" </dev/null
    } >"$log" 2>&1; then
        cat "$log" >&2
        echo "setup: apt-get could not install ${packages[*]}; its messages are above" >&2
        exit 1
    fi
    rm -f "$log"
fi
if [ -n "$typos_missing" ]; then
    if [ -n "$check" ]; then
        echo "setup: missing: typos; get it by: scripts/setup.sh lint" >&2
        exit 1
    fi
    python3 -m venv "$typos_dir"
    "$typos_dir/bin/pip" install -q --disable-pip-version-check "typos==$typos_version"
fi
[ -z "$cargo_missing" ] || exit 1
