#!/bin/sh
# What a real systemd says in each situation that opsboard tells apart: tests/fixtures/systemd/*.txt are made by
#   sh tests/support/own_systemd.sh sh tests/support/record_systemd.sh tests/fixtures/systemd
set -u
out=$1
ask=LoadState,ActiveState,SubState,Description,InvocationID,ControlGroup,MainPID,ExecMainPID,ExecMainCode,ExecMainStatus,Result,ExecStop
begin() {
    name=$1
    shift
    systemd-run --quiet --unit="$name" --description="opsboard engine $name (the-instance)" --property=Type=exec \
        --property=RemainAfterExit=yes --property=ExecStop=/bin/true --property=TimeoutStopSec=1 \
        --property=OOMPolicy=continue "$@" >"$out/$name.said" 2>&1
    [ -s "$out/$name.said" ] || rm "$out/$name.said"
}
show() { systemctl show "$1.service" --property="$ask" >"$out/$1.txt"; }

begin running -- sleep 60; show running
begin exited-7 -- sh -c 'sleep 0.1; exit 7'; sleep 0.4; show exited-7
begin exited-0 -- sh -c 'sleep 0.1'; sleep 0.4; show exited-0
begin killed -- sleep 60; systemctl kill --signal=KILL killed; sleep 0.3; show killed
begin stopped -- sleep 60; systemctl stop stopped; show stopped
begin stopped-badly -- sh -c 'trap "exit 3" TERM; while :; do sleep 0.05; done'; sleep 0.2; systemctl stop stopped-badly; show stopped-badly
begin stopping -- sh -c 'trap "" TERM; while :; do sleep 0.05; done'; sleep 0.2; systemctl stop --no-block stopping; sleep 0.1; show stopping
begin left -- sh -c '(trap "" TERM; while :; do sleep 0.05; done) & sleep 0.1; exit 5'; sleep 0.4; show left
begin no-directory --working-directory=/nope -- true; show no-directory
begin no-user --property=User=nobody-of-this-name -- true; show no-user
begin not-executable -- /etc/hostname; show not-executable
begin running -- sleep 60
show never-heard-of
systemctl stop running stopping left 2>/dev/null
