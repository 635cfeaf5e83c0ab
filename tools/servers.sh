#!/bin/sh
# Install the servers that tests run and that no wheel carries: RabbitMQ, Mosquitto, ActiveMQ, etcd, Knot DNS.
#
#     tools/servers.sh [--now]
#
# Without --now it does so only as root, or in CI; tests whose server is missing are skipped otherwise. No service is
# started: the tests run each on a free loopback port.
set -eu

missing=""
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
[ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null || missing="$missing mosquitto"
[ -d /usr/share/activemq ] || missing="$missing activemq"
[ -x /usr/sbin/knotd ] || command -v knotd >/dev/null || missing="$missing knot"
[ -x /usr/bin/etcd ] || missing="$missing etcd-server"
[ -x /usr/bin/etcdctl ] || missing="$missing etcd-client"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Tests of$missing are skipped: there is no apt-get to install them with." >&2
    exit 0
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
    if [ "${1:-}" != --now ]; then
        echo "Tests of$missing are skipped; 'make servers' installs them." >&2
        exit 0
    fi
    as_root=sudo
fi

echo "Installing$missing for the tests …" >&2
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod +x $policy
    trap '$as_root rm -f $policy' EXIT
fi
$as_root apt-get update -qq >/dev/null
# shellcheck disable=SC2086  # a list of packages
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qq -y --no-install-recommends $missing >/dev/null
