#!/usr/bin/env bash
# Real brokers for integration tests: on loopback, without containers, without touching the system.
#
#   brokers.sh up   NAME...           start what does not run, wait until healthy, print `export` lines
#   brokers.sh down [NAME...]         stop (default: all) and drop the data; downloads stay
#   brokers.sh env  [NAME...]         the `export` lines again (default: of all that run)
#   brokers.sh status                 each node: port, pid, state, memory
#   brokers.sh node NAME N ACTION     ACTION = kill | stop | start | freeze | thaw | pid | log; N = 1, 2, 3
#   brokers.sh kafka CLASS ARG...     one of Kafka's command line classes
#   brokers.sh libs                   the folder of Kafka's jars
#   brokers.sh ctl  NAME[:N] ARG...   rabbitmqctl (rabbitmq-queues etc. with CTL=rabbitmq-queues)
#
# NAME                nodes  what                                             ports from BROKERS_PORTS (20000)
#   kafka               1    Kafka KAFKA_VERSION, replication 1               +0
#   kafka-cluster       3    the same, replication 3, min.insync 2            +10 +20 +30
#   rabbitmq            1    RabbitMQ of Debian 12 (3.10)                     +40
#   rabbitmq-cluster    3    RabbitMQ of Debian 13, or RABBITMQ_CLUSTER_SUITE +50 +60 +70
#   rabbitmq4           1    RabbitMQ of Debian 13 (4.0)                      +80
#   rabbitmq-next       1    RabbitMQ of Debian unstable (4.3 or later)       +90
#   kafka-v1            1    as kafka, with transaction.version 0             +100
# A Kafka node: +0 PLAINTEXT +1 SSL +2 MTLS +3 SASL_SSL +4 SASL_PLAINTEXT +5 PROXIED (plain, advertises +6: put a proxy there) +9 controller.
# A RabbitMQ node: +0 AMQP +1 AMQPS (client certificate optional) +2 HTTP +3..8 Erlang +9 epmd (of node 1).
# Env: BROKERS_HOME, BROKERS_PORTS, BROKERS_WAIT (90 s), KAFKA_VERSION, KAFKA_JVM, KAFKA_LIBS (a folder of jars: then no Maven),
#      KAFKA_V1_LEVEL (0; 1 is the same protocol).
# Needs bash, openssl, flock; Java 17+ and Maven for Kafka; apt-get and dpkg-deb on Debian for RabbitMQ. Not root.
set -euo pipefail
KAFKA_VERSION=${KAFKA_VERSION:-4.3.1} LOG4J_VERSION=2.25.4
HOME_DIR=${BROKERS_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/muslin/brokers} PORTS=${BROKERS_PORTS:-20000} WAIT=${BROKERS_WAIT:-90}
KAFKA_JVM=${KAFKA_JVM:--Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1}   # C1 only: boots in half the time
NAMES="kafka kafka-cluster rabbitmq rabbitmq-cluster rabbitmq4 rabbitmq-next kafka-v1"
USER_NAME=alice PASSWORD=alice-secret ADMIN=admin ADMIN_PASSWORD=admin-secret TLS=$HOME_DIR/tls
say() { echo "brokers.sh: $*" >&2; }
die() { say "$@"; exit 1; }
need() { local c; for c in "$@"; do command -v "$c" >/dev/null || die "needs '$c': ${HINT:-install it and try again}"; done; }

select_name() { # sets NAME KIND NODES BASE SUITE VAR
  NAME=$1 NODES=1 SUITE= FEATURES=()
  case $NAME in
    kafka)            KIND=kafka  BASE=$PORTS VAR=KAFKA ;;
    kafka-v1)         KIND=kafka  BASE=$((PORTS + 100)) VAR=KAFKA_V1 FEATURES=(--feature "transaction.version=${KAFKA_V1_LEVEL:-0}") ;;
    kafka-cluster)    KIND=kafka  BASE=$((PORTS + 10)) NODES=3 VAR=KAFKA_CLUSTER ;;
    rabbitmq)         KIND=rabbit BASE=$((PORTS + 40)) SUITE=bookworm VAR=RABBITMQ ;;
    rabbitmq-cluster) KIND=rabbit BASE=$((PORTS + 50)) SUITE=${RABBITMQ_CLUSTER_SUITE:-trixie} NODES=3 VAR=RABBITMQ_CLUSTER ;;
    rabbitmq4)        KIND=rabbit BASE=$((PORTS + 80)) SUITE=trixie VAR=RABBITMQ4 ;;
    rabbitmq-next)    KIND=rabbit BASE=$((PORTS + 90)) SUITE=sid VAR=RABBITMQ_NEXT ;;
    *) die "unknown broker '$NAME': one of $NAMES" ;;
  esac
  DIR=$HOME_DIR/run/$NAME READY='Server startup complete'; [ $KIND = rabbit ] || READY='Kafka Server started'
}
port() { echo $((BASE + ($1 - 1) * 10 + $2)); } # port NODE OFFSET

# --- processes: a pid counts only while that process still works in the node's own folder -----------------------------
alive() { local p; p=$(cat "$1/pid" 2>/dev/null) && [ -n "$p" ] && [ "$(readlink "/proc/$p/cwd")" = "$(readlink -f "$1")" ]; }
launch() { (cd "$1"; shift; if [ -e log ]; then mv log log.1; fi; setsid "$@" >log 2>&1 </dev/null 9>&- & echo $! >pid); } # launch DIR COMMAND...
gone() { local i; for i in $(seq "$2"); do alive "$1" || return 0; sleep 0.1; done; return 1; }
stop() { # stop DIR: asks, waits 20 s, insists
  local p; alive "$1" || return 0
  p=$(cat "$1/pid"); kill -CONT "$p"; kill "$p" || true
  gone "$1" 200 || { say "$1 did not stop in 20 s, killing it"; kill -9 "$p" || true; gone "$1" 50; }
}
await() { # await DIR TEXT: until its log has the text
  local i; for ((i = 0; i < WAIT * 10; i++)); do grep -q "$2" "$1/log" 2>/dev/null && return
    # A process that is about to become another program has no folder for a moment: gone is who is gone twice.
    alive "$1" || { sleep 0.5; alive "$1" || break; }; sleep 0.1; done
  grep -m 8 -iE "error|exception" "$1/log" >&2 || tail -25 "$1/log" >&2; die "$1 did not come up in $((i / 10)) of $WAIT s, see its log"
}

# --- TLS: one CA, a certificate for localhost, one for the user. Keys are PKCS#8, as Kafka and rustls want them ---------
make_tls() {
  [ -e "$TLS/.done" ] && return; need openssl; rm -rf "$TLS"; mkdir -p "$TLS"
  local key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  openssl req -x509 "${key[@]}" -keyout "$TLS/ca.key" -out "$TLS/ca.pem" -subj "/CN=muslin test CA" -days 3650 \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
  leaf() { # leaf NAME CN EXTENSIONS
    openssl req -new "${key[@]}" -keyout "$TLS/$1.key" -out "$TLS/$1.csr" -subj "/CN=$2" 2>/dev/null
    openssl x509 -req -in "$TLS/$1.csr" -CA "$TLS/ca.pem" -CAkey "$TLS/ca.key" -CAcreateserial -days 3650 \
      -out "$TLS/$1.pem" -extfile <(printf 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n%b' "$3") 2>/dev/null
    cat "$TLS/$1.key" "$TLS/$1.pem" >"$TLS/$1.both.pem"; rm "$TLS/$1.csr"
  }
  leaf server localhost 'extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n'
  leaf client $USER_NAME 'extendedKeyUsage=clientAuth\n'
  touch "$TLS/.done"
}

# --- Kafka --------------------------------------------------------------------------------------------------------------
kafka_dist() { # sets LIBS
  LIBS=${KAFKA_LIBS:-$HOME_DIR/dist/kafka-$KAFKA_VERSION}; HINT="a Java runtime, 17 or later" need java
  [ -n "${KAFKA_LIBS:-}" ] || [ -e "$LIBS/.done" ] && return
  HINT="install Maven, or set KAFKA_LIBS to a folder that holds Kafka's jars" need mvn
  say "fetching Kafka $KAFKA_VERSION (about 40 MB, once)"; mkdir -p "$LIBS"
  local k=org.apache.kafka # left out: Kafka Connect and its web server
  dep() { echo "<dependency><groupId>$1</groupId><artifactId>$2</artifactId><version>$3</version><exclusions>${4:-}</exclusions></dependency>"; }
  out() { echo "<exclusion><groupId>$1</groupId><artifactId>$2</artifactId></exclusion>"; }
  echo "<project><modelVersion>4.0.0</modelVersion><groupId>x</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
    $(dep $k kafka_2.13 "$KAFKA_VERSION") $(dep org.apache.logging.log4j log4j-slf4j-impl $LOG4J_VERSION)
    $(dep $k kafka-tools "$KAFKA_VERSION" "$(out $k connect-runtime)$(out $k connect-json)$(out com.fasterxml.jackson.jakarta.rs '*')")
    </dependencies></project>" >"$LIBS/pom.xml"
  mvn -q -B -f "$LIBS/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DoutputDirectory="$LIBS" -DincludeScope=runtime >"$LIBS/mvn.log" 2>&1 &&
    touch "$LIBS/.done" || { tail -15 "$LIBS/mvn.log" >&2; die "Maven could not fetch Kafka $KAFKA_VERSION"; }
}
kafka_conf() { # kafka_conf NODE: server.properties and log4j2.properties of one node
  local d=$DIR/$1 n=0 m p l="" r=1 isr=1 quorum="" jaas=org.apache.kafka.common.security
  [ $NODES = 1 ] || { r=3; isr=2; }
  for m in PLAINTEXT SSL MTLS SASL_SSL SASL_PLAINTEXT; do l+="$m://127.0.0.1:$(port "$1" $n),"; n=$((n + 1)); done
  l+="CONTROLLER://127.0.0.1:$(port "$1" 9),PROXIED://127.0.0.1:"
  for n in $(seq $NODES); do quorum+=",127.0.0.1:$(port "$n" 9)"; done
  p=(process.roles=broker,controller "node.id=$1" "broker.rack=rack$1" log.dirs="$d/data"
    listeners="$l$(port "$1" 5)" advertised.listeners="$l$(port "$1" 6)" inter.broker.listener.name=PLAINTEXT
    controller.listener.names=CONTROLLER controller.quorum.bootstrap.servers="${quorum#,}"
    listener.security.protocol.map="$(printf '%s:PLAINTEXT,' CONTROLLER PLAINTEXT PROXIED)SSL:SSL,MTLS:SSL,SASL_SSL:SASL_SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"
    ssl.keystore.type=PEM ssl.keystore.location="$TLS/server.both.pem" ssl.truststore.type=PEM ssl.truststore.location="$TLS/ca.pem"
    listener.name.mtls.ssl.client.auth=required 'ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT'
    authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer allow.everyone.if.no.acl.found=true
    "super.users=User:ANONYMOUS;User:$ADMIN" sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
    default.replication.factor=$r min.insync.replicas=$isr transaction.state.log.min.isr=$isr share.coordinator.state.topic.min.isr=$isr
    replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector auto.leader.rebalance.enable=false
    # tests wait for these: rebalance 3 s, heartbeats 5 s, sessions 6 and 45 s, locks 15 s, broker session 9 s, ISR 30 s, cleaner 15 s
    group.initial.rebalance.delay.ms=0 group.min.session.timeout.ms=1000 group.share.min.record.lock.duration.ms=1000
    transaction.abort.timed.out.transaction.cleanup.interval.ms=1000 log.initial.task.delay.ms=1000 log.cleaner.backoff.ms=500
    broker.heartbeat.interval.ms=500 broker.session.timeout.ms=4000 replica.lag.time.max.ms=4000
    # these make a node big: 128 MB for the cleaner, threads
    log.cleaner.dedupe.buffer.size=4194304 log.cleaner.threads=1 num.network.threads=2 num.io.threads=4 background.threads=4)
  for n in offsets.topic transaction.state.log share.coordinator.state.topic; do p+=($n.replication.factor=$r $n.num.partitions=5); done # not 50
  for n in group.{consumer,share,streams}; do
    p+=($n.min.session.timeout.ms=1000 $n.min.heartbeat.interval.ms=100 $n.heartbeat.interval.ms=500); done
  for n in listener.name.sasl_{ssl,plaintext}; do
    p+=("$n.plain.sasl.jaas.config=$jaas.plain.PlainLoginModule required user_$USER_NAME=\"$PASSWORD\" user_$ADMIN=\"$ADMIN_PASSWORD\";"
      "$n.oauthbearer.sasl.jaas.config=$jaas.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";"
      $n.scram-sha-{256,512}.sasl.jaas.config="$jaas.scram.ScramLoginModule required;"); done
  printf '%s\n' "${p[@]}" >"$d/server.properties"
  printf '%s\n' status=error rootLogger.level=info rootLogger.appenderRef.o.ref=o appender.o.type=Console appender.o.name=o \
    appender.o.layout.type=PatternLayout 'appender.o.layout.pattern=%d %p %m (%c{1})%n' >"$d/log4j2.properties"
}
kafka_start() { # kafka_start NODE
  local d=$DIR/$1 n m voters="" scram=()
  if [ ! -e "$d/.formatted" ]; then
    mkdir -p "$d"; kafka_conf "$1"
    # any 16 bytes in base64, but not small numbers: the first hundred ids are reserved
    for n in $(seq $NODES); do voters+=",$n@127.0.0.1:$(port "$n" 9):brokerstestnode00000$n"Q; done
    for m in SCRAM-SHA-256 SCRAM-SHA-512; do
      scram+=(--add-scram "$m=[name=$USER_NAME,password=$PASSWORD]" --add-scram "$m=[name=$ADMIN,password=$ADMIN_PASSWORD]"); done
    java -XX:TieredStopAtLevel=1 -Dlog4j2.level=error -cp "$LIBS/*" kafka.tools.StorageTool format -c "$d/server.properties" \
      -t brokerstestcluster000g --initial-controllers "${voters#,}" "${scram[@]}" "${FEATURES[@]}" >"$d/format.log" 2>&1 &&
      touch "$d/.formatted" || { cat "$d/format.log" >&2; die "Kafka could not format $d/data"; }
  fi
  launch "$d" java $KAFKA_JVM -Dlog4j2.configurationFile=log4j2.properties -cp "$LIBS/*" kafka.Kafka server.properties
}

# --- RabbitMQ: Debian's packages unpacked under the home folder and run with their own C library ------------------------
rabbit_dist() { # sets R; apt's own state, so neither the system's packages nor its sources change
  R=$HOME_DIR/dist/rabbitmq-$SUITE; [ -e "$R/.done" ] && return
  HINT="RabbitMQ comes from Debian's archive and this is not Debian" need apt-get apt-cache dpkg-deb
  local a=$HOME_DIR/apt-$SUITE uri list i o ld libs f
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$') || die "no Debian archive in apt's sources"
  say "fetching RabbitMQ from Debian $SUITE (about 50 MB, once)"
  rm -rf "$R"; mkdir -p "$R/debs" "$a"/{state/lists,cache/archives}/partial "$a/etc"; : >"$a/status"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$uri" "$SUITE" \
    /usr/share/keyrings/debian-archive-keyring.gpg >"$a/etc/debian.sources"
  o=(-qq -o Dir::State="$a/state" -o Dir::Cache="$a/cache" -o Dir::State::status="$a/status" -o Dir::Etc::SourceList=/dev/null
     -o Dir::Etc::SourceParts="$a/etc" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none)
  for i in 1 2 3; do apt-get "${o[@]}" update >"$a/log" 2>&1 && break; sleep $((i * 5)); done
  list=$(apt-get "${o[@]}" install -s --no-install-recommends rabbitmq-server | sed -nE \
    's/^Inst ((erlang-.*|rabbitmq-server|zlib1g|lib(c6|gcc-s1|stdc\+\+6|systemd0|tinfo6|sctp1|ssl3.*|zstd1|cap2|lzma5|lz4-1|gcrypt20|gpg-error0))) \(.*/\1/p')
  (cd "$R/debs" && apt-get "${o[@]}" download $list) >>"$a/log" 2>&1 ||
    { tail -5 "$a/log" >&2; die "apt could not fetch RabbitMQ from Debian $SUITE"; }
  for f in "$R"/debs/*.deb; do dpkg-deb -x "$f" "$R"; done; rm -rf "$R/debs" "$a"
  ld=$(find "$R" -name 'ld-linux-*.so.*' | head -1)
  libs=$(find "$R" '(' -name libc.so.6 -o -name libssl.so.3 -o -name libtinfo.so.6 ')' -printf '%h\n' | sort -u | paste -sd:)
  find "$R/usr/lib/erlang" -type f -perm -u+x | while read -r f; do # each program becomes a script that calls it through its own loader
    [ "$(head -c4 "$f" | tail -c3)" = ELF ] || continue
    mv "$f" "$f.elf"; printf '#!/bin/sh\nexec "%s" --library-path "%s" --argv0 "$0" "%s" "$@"\n' "$ld" "$libs" "$f.elf" >"$f"; chmod +x "$f"
  done
  sed -i "s#^\( *ROOTDIR=\).*/usr/lib/erlang\"*\$#\1$R/usr/lib/erlang#" "$R"/usr/lib/erlang/bin/erl "$R"/usr/lib/erlang/erts-*/bin/erl
  touch "$R/.done"
}
rabbit_env() { # rabbit_env NODE COMMAND...
  local d=$DIR/$1 n=$1 i="-kernel inet_dist_use_interface {127,0,0,1}"; shift
  exec env HOME="$DIR" PATH="$R/usr/lib/erlang/bin:$R/usr/lib/rabbitmq/bin:$PATH" RABBITMQ_NODENAME="${NAME//-/_}$n@localhost" \
    RABBITMQ_MNESIA_BASE="$d/data" RABBITMQ_LOG_BASE="$d" RABBITMQ_CONF_ENV_FILE="$d/none" RABBITMQ_CONFIG_FILE="$d/rabbitmq.conf" \
    RABBITMQ_ADVANCED_CONFIG_FILE="$d/advanced.config" RABBITMQ_GENERATED_CONFIG_DIR="$d/generated" RABBITMQ_PID_FILE="$d/rabbit.pid" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$d/enabled_plugins" RABBITMQ_DIST_PORT="$(port "$n" 3)" ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$(port 1 9)" \
    RABBITMQ_CTL_DIST_PORT_MIN="$(port "$n" 4)" RABBITMQ_CTL_DIST_PORT_MAX="$(port "$n" 8)" RABBITMQ_CTL_ERL_ARGS="$i" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="$i -kernel net_ticktime 8" RUNNING_UNDER_SYSTEMD=true "$@"
}
rabbit_start() { # rabbit_start NODE; RUNNING_UNDER_SYSTEMD makes the script exec, so that its pid is the node's
  local d=$DIR/$1 n
  alive "$DIR/epmd" || { mkdir -p "$DIR/epmd"; launch "$DIR/epmd" "$R"/usr/lib/erlang/bin/epmd -address 127.0.0.1 -port "$(port 1 9)"; }
  if [ ! -e "$d/rabbitmq.conf" ]; then
    mkdir -p "$d"; [ -e "$DIR/.erlang.cookie" ] || { echo brokers >"$DIR/.erlang.cookie"; chmod 400 "$DIR/.erlang.cookie"; }
    echo '[rabbitmq_management,rabbitmq_auth_mechanism_ssl].' >"$d/enabled_plugins"
    # consumer timeouts are looked for every minute, queue depths are told to the HTTP API every 5 s: by default
    echo '[{rabbit,[{channel_tick_interval,1000},{quorum_tick_interval,1000}]}].' >"$d/advanced.config"
    local t='"permissions":[' u='"users":['
    for n in "$USER_NAME $PASSWORD" "$ADMIN $ADMIN_PASSWORD" "guest guest"; do
      u+="{\"name\":\"${n% *}\",\"password\":\"${n#* }\",\"tags\":\"administrator\"},"
      t+="{\"user\":\"${n% *}\",\"vhost\":\"/\",\"configure\":\".*\",\"write\":\".*\",\"read\":\".*\"},"; done
    echo "{\"vhosts\":[{\"name\":\"/\"}],${u%,}],${t%,}]}" >"$d/definitions.json"
    { printf '%s\n' "listeners.tcp.1 = 127.0.0.1:$(port "$1" 0)" "listeners.ssl.1 = 127.0.0.1:$(port "$1" 1)" \
        "ssl_options.cacertfile = $TLS/ca.pem" "ssl_options.certfile = $TLS/server.pem" "ssl_options.keyfile = $TLS/server.key" \
        "ssl_options.verify = verify_peer" "ssl_options.fail_if_no_peer_cert = false" "ssl_cert_login_from = common_name" \
        "auth_mechanisms.1 = PLAIN" "auth_mechanisms.2 = AMQPLAIN" "auth_mechanisms.3 = EXTERNAL" "loopback_users = none" \
        "management.tcp.ip = 127.0.0.1" "management.tcp.port = $(port "$1" 2)" "collect_statistics_interval = 500" \
        "log.console = true" "log.file = false" "load_definitions = $d/definitions.json" \
        "cluster_formation.peer_discovery_backend = classic_config"
      for n in $(seq $NODES); do echo "cluster_formation.classic_config.nodes.$n = ${NAME//-/_}$n@localhost"; done
    } >"$d/rabbitmq.conf"
  fi
  launch "$d" bash -c "$(declare -f rabbit_env port); NAME='$NAME' DIR='$DIR' R='$R' BASE=$BASE; rabbit_env $1 rabbitmq-server"
}

# --- commands -------------------------------------------------------------------------------------------------------------
up() {
  local n any=; make_tls; ${KIND}_dist
  for n in $(seq $NODES); do alive "$DIR/$n" && any=1; done; [ -n "$any" ] || down
  for n in $(seq $NODES); do alive "$DIR/$n" || ${KIND}_start "$n"; done
  for n in $(seq $NODES); do await "$DIR/$n" "$READY"; done
}
down() { local n; for n in $(seq $NODES); do stop "$DIR/$n" & done; wait; stop "$DIR/epmd"; rm -rf "$DIR"; }
exports() {
  local n m s i=0; list() { s=; for n in $(seq $NODES); do s+=",${1}127.0.0.1:$(port "$n" "$2")"; done; s=${s#,}; }
  if [ $KIND = kafka ]; then
    for m in "" _SSL _MTLS _SASL_SSL _SASL_PLAINTEXT _UNPROXIED _PROXIED; do list "" $i; echo "export ${VAR}_BOOTSTRAP$m=$s"; i=$((i + 1)); done
  else
    for m in amqp:URL amqps:URL_TLS http:HTTP; do list "${m%:*}://$USER_NAME:$PASSWORD@" $i; echo "export ${VAR}_${m#*:}=$s"; i=$((i + 1)); done
    echo "export ${VAR}_VERSION=$(basename "$R"/usr/lib/rabbitmq/lib/rabbitmq_server-* | sed s/.*-//)"
  fi
}
common() { printf 'export %s=%q\n' BROKERS_CA "$TLS/ca.pem" BROKERS_CLIENT_CERT "$TLS/client.pem" BROKERS_CLIENT_KEY "$TLS/client.key" \
  BROKERS_USER $USER_NAME BROKERS_PASSWORD $PASSWORD BROKERS_ADMIN $ADMIN BROKERS_ADMIN_PASSWORD $ADMIN_PASSWORD; }
running() { local n; for n in $NAMES; do select_name "$n"; [ -d "$DIR" ] && echo "$n"; done; true; }
node() {
  local d=$DIR/$1 p; p=$(cat "$d/pid" 2>/dev/null) || die "$NAME has no node $1"
  [[ $2 = start || $2 = log ]] || alive "$d" || die "$NAME node $1 does not run"
  case $2 in
    kill) kill -9 "$p"; gone "$d" 50 ;;  stop) stop "$d" ;;  freeze) kill -STOP "$p" ;;  thaw) kill -CONT "$p" ;;
    start) ${KIND}_dist; alive "$d" || ${KIND}_start "$1"; await "$d" "$READY" ;;  pid) echo "$p" ;;  log) cat "$d/log" ;;
    *) die "unknown action '$2': kill, stop, start, freeze, thaw, pid, log" ;;
  esac
}
locked() { need flock; mkdir -p "$HOME_DIR"; exec 9>"$HOME_DIR/lock"; flock -w 600 9 || die "another one holds $HOME_DIR/lock"; }

cmd=${1:-}; [ -n "$cmd" ] && shift || { sed -n '2,25p' "$0" | sed 's/^# \?//'; exit 2; }
case $cmd in
  up)   [ $# -gt 0 ] || die "up what? $NAMES"; locked; for n in "$@"; do select_name "$n"; up; exports; done; common ;;
  down) locked; for n in ${*:-$(running)}; do select_name "$n"; down; done ;;
  env)  for n in ${*:-$(running)}; do select_name "$n"; ${KIND}_dist; exports; done; common ;;
  status) for n in $(running); do select_name "$n"; for i in $(seq $NODES); do # a T is frozen; memory in KB; time since its start
      p=$(alive "$DIR/$i" && cat "$DIR/$i/pid") || p=-
      printf '%-17s node %s  127.0.0.1:%s+  pid %-7s %s\n' "$n" "$i" "$(port "$i" 0)" "$p" "$(ps -o stat=,rss=,etime= -p "$p" 2>/dev/null)"; done; done ;;
  node) [ $# = 3 ] || die "node NAME N ACTION"; locked; select_name "$1"; node "$2" "$3" ;;
  libs) kafka_dist; echo "$LIBS" ;;
  kafka) kafka_dist; exec java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.level=error -cp "$LIBS/*" "$@" ;;
  ctl)  [ $# -gt 1 ] || die "ctl NAME[:N] ARG..."; select_name "${1%:*}"; n=1; [[ $1 != *:* ]] || n=${1#*:}; shift
        rabbit_dist; rabbit_env "$n" "${CTL:-rabbitmqctl}" -q "$@" ;;
  *) die "unknown command '$cmd'" ;;
esac
