#!/usr/bin/env bash
# S3Proxy for development and tests: a server of S3's protocol that keeps objects as files of a folder, on 127.0.0.1.
#
#   scripts/s3.sh up     [--port 9000] [--dir DIR]           start, wait until it serves, print its URL
#   scripts/s3.sh down   [--port 9000] [--dir DIR] [--wipe]  stop what `up` started; --wipe: and its objects
#   scripts/s3.sh status [--port 9000] [--dir DIR]           exit 0 when it runs and serves, else 3
#   scripts/s3.sh env    [--port 9000]                       shell lines that point Thalweg at it
#   scripts/s3.sh fetch                                      only fill the cache, print its folder
#   scripts/s3.sh exec   --port N [--dir DIR]                run in the foreground (for tests)
#   scripts/s3.sh lock                                       after a change of version: rewrite SHA256SUMS
#
# Objects are in DIR/objects/BUCKET (default DIR: $THALWEG_CACHE/run/s3-PORT) and outlive `down`; the bucket `thalweg` is
# made. Who logs in is `thalweg`, with the secret `thalweg-secret`.
set -euo pipefail
name=s3
goal=dependency:copy
# shellcheck source=scripts/jvm.sh
. "$(dirname "$0")/jvm.sh"

unpack() { :; }

address() { echo "http://127.0.0.1:$port"; }

# It answers, whatever: nobody has logged in.
ready() (
    exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port" || exit
    printf 'GET /thalweg HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3
    [[ $(timeout 10 head -n 1 <&3) == 'HTTP/1.1 '[24]* ]]
)

become() {
    local jvm
    mkdir -p "$dir/objects" "$dir/tmp"
    # What others may read on the disk anybody may read by S3.
    (umask 077 && mkdir -p "$dir/objects/thalweg")
    cat >"$dir/s3.properties" <<END
s3proxy.endpoint=http://127.0.0.1:$port
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity=thalweg
s3proxy.credential=thalweg-secret
jclouds.provider=filesystem-nio2
jclouds.filesystem.basedir=$dir/objects
END
    read -ra jvm <<<"${THALWEG_S3_JVM:--Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1}"
    exec java "${jvm[@]}" "-Dthalweg.dir=$dir" "-Djava.io.tmpdir=$dir/tmp" \
        -cp "$home/s3proxy-$(pinned_version s3)-jar-with-dependencies.jar" org.gaul.s3proxy.Main \
        --properties "$dir/s3.properties"
}

command=${1:-}; [ $# -gt 0 ] && shift
port=9000 dir='' wipe=''
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
            say "starting S3Proxy $(pinned_version s3) on $(address), objects in $dir/objects"
            start "$here/s3.sh" exec --port "$port" --dir "$dir"
        elif ! ready; then
            die "a server already runs on $dir, at another port; stop it first: $0 down --dir $dir"
        fi
        address
        ;;
    env)
        echo "export AWS_ENDPOINT_URL=$(address) AWS_REGION=us-east-1"
        echo "export AWS_ACCESS_KEY_ID=thalweg AWS_SECRET_ACCESS_KEY=thalweg-secret"
        echo "export THALWEG_CHECKPOINT_STORE=s3://thalweg/checkpoints"
        ;;
    *) run_command "$command" ;;
esac
