#!/bin/sh
# Starts the daemon on its default places with these arguments of `agent-monitor run`, and comes back when it answers.
mkdir -p /etc/agent-monitor/agents.d /var/lib/agent-monitor /run/agent-monitor
agent-monitor run "$@" >/run/agent-monitor/daemon.out 2>&1 &
daemon=$!
until agent-monitor status >/dev/null 2>&1; do
    if ! kill -0 "$daemon" 2>/dev/null; then
        cat /run/agent-monitor/daemon.out
        echo "monitor-up: the daemon ended before it answered" >&2
        exit 1
    fi
    usleep 100000
done
