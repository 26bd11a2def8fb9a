#!/usr/bin/env bash
# Apache Kafka for development and tests: one KRaft broker on 127.0.0.1, its jars from Maven in a cache outside the clone.
#
#   scripts/kafka.sh up     [--port 9092] [--dir DIR] [--set KEY=VALUE]…  start, wait until it serves, print host:port
#   scripts/kafka.sh down   [--port 9092] [--dir DIR] [--wipe]            stop what `up` started; --wipe: and its data
#   scripts/kafka.sh status [--port 9092] [--dir DIR]                     exit 0 when it runs and serves, else 3
#   scripts/kafka.sh env    [--port 9092]                                 shell lines that point Thalweg at it
#   scripts/kafka.sh fetch                                                only fill the cache, print its folder
#   scripts/kafka.sh exec   --port N [--dir DIR] [--set KEY=VALUE]…       run in the foreground (tests: exec'd, so that a
#                                                                         signal to this process is one to the broker)
#   scripts/kafka.sh lock                                                 after a change of version: rewrite SHA256SUMS
#
# `up` and `exec` take --secure USER:PASSWORD too: two more listeners, SASL_SSL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512) for
# this user, and SSL. DIR/secure then holds ca.pem, the authority that signed the broker's certificate, and the files sasl
# and ssl with host:port of the listeners. The user and the certificates are of the folder's first start.
#
# `up` twice is `up` once. Several run side by side on ports and folders of their own. Without --dir the data are in
# $THALWEG_CACHE/run/kafka-PORT and outlive `down`. THALWEG_KAFKA_JVM replaces the JVM's options (a quick start and a
# small heap; for benchmarks say e.g. "-Xmx4g").
set -euo pipefail
name=kafka
goal=dependency:copy-dependencies
# shellcheck source=scripts/jvm.sh
. "$(dirname "$0")/jvm.sh"

unpack() { :; }

# A key and a certificate for 127.0.0.1, signed by an authority of the folder's own; once for a folder.
make_certificates() {
    local to=$dir/secure
    [ ! -f "$to/sasl" ] || return 0
    rm -rf "$to"
    mkdir -p "$to"
    tool() { keytool -J-XX:TieredStopAtLevel=1 -J-XX:+UseSerialGC "$@" -storepass thalweg 2>>"$to/log"; }
    tool -genkeypair -alias ca -dname CN=thalweg-authority -keyalg EC -ext bc:c -validity 3650 -keystore "$to/ca.p12"
    tool -exportcert -rfc -alias ca -keystore "$to/ca.p12" >"$to/ca.pem"
    tool -genkeypair -alias broker -dname CN=127.0.0.1 -keyalg EC -validity 3650 -keystore "$to/broker.p12"
    tool -certreq -alias broker -keystore "$to/broker.p12" |
        tool -gencert -rfc -alias ca -ext san=ip:127.0.0.1,dns:localhost -validity 3650 -keystore "$to/ca.p12" |
        cat - "$to/ca.pem" >"$to/chain.pem"
    tool -importcert -noprompt -alias broker -file "$to/chain.pem" -keystore "$to/broker.p12"
    echo "127.0.0.1:$(free_port)" >"$to/ssl"
    echo "127.0.0.1:$(free_port)" >"$to/sasl"
}

# The listeners of --secure.
write_secure_properties() {
    local sasl ssl module=org.apache.kafka.common.security
    sasl=$(cat "$dir/secure/sasl") ssl=$(cat "$dir/secure/ssl")
    cat <<END
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port,SECURE://$sasl,TLS://$ssl
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SECURE://$sasl,TLS://$ssl
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL,TLS:SSL
ssl.keystore.type=PKCS12
ssl.keystore.location=$dir/secure/broker.p12
ssl.keystore.password=thalweg
ssl.key.password=thalweg
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=$module.plain.PlainLoginModule required user_$user="$password";
listener.name.secure.scram-sha-256.sasl.jaas.config=$module.scram.ScramLoginModule required;
listener.name.secure.scram-sha-512.sasl.jaas.config=$module.scram.ScramLoginModule required;
END
}

# A Metadata request (version 4, all topics) that is answered with at least one broker: by then the broker is registered
# and unfenced. A port that is open, or a line in the log, comes seconds earlier.
ready() {
    local answer
    answer=$(
        exec 2>/dev/null 3<>"/dev/tcp/127.0.0.1/$port" || exit
        printf '\0\0\0\x12\0\x03\0\x04\0\0\0\x07\0\x03abc\xff\xff\xff\xff\0' >&3
        timeout 2 head -c 16 <&3 | od -An -v -tx1 | tr -d ' \n'
    ) || return
    [ "${#answer}" = 32 ] && [ "${answer:24:8}" != 00000000 ]
}

address() { echo "127.0.0.1:$port"; }

# Settings for one broker that is young, short-lived and alone. Where a value differs from Kafka's own it says why.
write_properties() {
    cat <<END
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
log.dirs=$dir/data
# One broker: nothing to replicate to, and few partitions of what is internal keep the start short.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
# A topic that nobody made is a mistake to be seen.
auto.create.topics.enable=false
# Events carry their own, old and future, times: neither expire them by those times nor refuse them.
log.retention.ms=-1
log.message.timestamp.after.max.ms=9223372036854775807
# Small machines.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=8388608
log.index.size.max.bytes=1048576
END
    printf '%s\n' "${settings[@]}" # of two lines for one key the last one counts
}

# Formats the folder once and becomes the broker.
become() {
    local jvm marker=$dir/formatted
    read -ra jvm <<<"${THALWEG_KAFKA_JVM:--Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1}"
    jvm+=("-Dthalweg.dir=$dir" "-Dlog4j2.configurationFile=$here/jars/kafka/log4j2.properties" -cp "$home/*")
    # Kept for the life of the folder: KRaft remembers its voter's address.
    [ -s "$dir/controller-port" ] || free_port >"$dir/controller-port"
    controller_port=$(cat "$dir/controller-port")
    local scram=()
    if [ -n "$user" ]; then
        make_certificates
        settings=("$(write_secure_properties)" "${settings[@]}")
        for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
            scram+=(--add-scram "$mechanism=[name=$user,password=$password]")
        done
    fi
    write_properties >"$dir/server.properties"
    if [ ! -f "$marker" ]; then
        rm -rf "$dir/data" # of a format that was interrupted: no broker ever ran on it
        java "${jvm[@]}" kafka.tools.StorageTool format --standalone -c "$dir/server.properties" "${scram[@]}" \
            -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c 1-22)" >/dev/null
        touch "$marker"
    fi
    exec java "${jvm[@]}" kafka.Kafka "$dir/server.properties"
}

command=${1:-}; [ $# -gt 0 ] && shift
port=9092 dir='' wipe='' user='' password='' settings=()
while [ $# -gt 0 ]; do
    case $1 in
        --port) port=${2:?--port needs a number}; shift 2 ;;
        --dir) dir=${2:?--dir needs a folder}; shift 2 ;;
        --set) settings+=("${2:?--set needs KEY=VALUE}"); shift 2 ;;
        --secure)
            [[ ${2:?--secure needs USER:PASSWORD} =~ ^([A-Za-z0-9_-]+):([A-Za-z0-9_.-]+)$ ]] ||
                die "--secure $2: give USER:PASSWORD, of letters, digits, - and _ (and . in the password)"
            user=${BASH_REMATCH[1]} password=${BASH_REMATCH[2]}
            shift 2
            ;;
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
            say "starting Apache Kafka $(pinned_version kafka) on 127.0.0.1:$port, data in $dir"
            args=(); for setting in "${settings[@]}"; do args+=(--set "$setting"); done
            [ -z "$user" ] || args+=(--secure "$user:$password")
            start "$here/kafka.sh" exec --port "$port" --dir "$dir" "${args[@]}"
        elif ! grep -Eq "^advertised.listeners=PLAINTEXT://127.0.0.1:$port(,|$)" "$dir/server.properties"; then
            die "a broker already runs on $dir, at another port; stop it first: $0 down --dir $dir"
        fi
        address
        ;;
    *) run_command "$command" ;;
esac
