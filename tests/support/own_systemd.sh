#!/bin/sh
# Run a command beside a real systemd of its own: new mount and PID namespaces, an empty /run, a journal in memory.
# Needs root, unshare, nsenter and systemd's programs; touches nothing outside but the control groups it makes.
#   tests/support/own_systemd.sh COMMAND [ARGUMENT...]
set -eu

if [ "${1-}" = "--boot" ]; then
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/system /run/log/journal
    for target in basic sysinit shutdown; do
        printf '[Unit]\nDefaultDependencies=no\n' >"/run/systemd/system/$target.target"
    done
    export container=opsboard SYSTEMD_UNIT_PATH=/run/systemd/system SYSTEMD_LOG_TARGET=null
    exec /usr/lib/systemd/systemd --system --unit=basic.target
fi

unshare --mount --pid --fork --mount-proc sh "$0" --boot >/dev/null 2>&1 &
outside=$!
first() { tr -d ' ' <"/proc/$outside/task/$outside/children"; }
trap 'kill -KILL "$(first)" 2>/dev/null || true; wait; rmdir /sys/fs/cgroup/systemd/system.slice /sys/fs/cgroup/system.slice 2>/dev/null || true' EXIT
inside() { nsenter --target "$(first)" --mount --pid "$@"; }

tries=0
until inside systemctl is-system-running >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "systemd did not begin" >&2; exit 70; }
    sleep 0.1
done
inside /usr/lib/systemd/systemd-journald >/dev/null 2>&1 &
until inside test -S /run/systemd/journal/stdout; do sleep 0.05; done
inside env --chdir="$PWD" "$@"
