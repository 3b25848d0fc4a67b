#!/bin/sh
# The demo's agent: what it does here is what the stream shows.
set -e
export LC_ALL=C
port=$1 outside=$2 tries=$3
bin=$(dirname "$0")
cat /etc/hostname > host.txt
echo "draft" > plan.txt
chmod 600 plan.txt
mv plan.txt done.txt
mkdir -p out && cp done.txt out/copy.txt
if command -v bash > /dev/null; then
    bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && echo hello >&3" || true
fi
# Out of scope: each is refused where this host's level can refuse it, and told either way.
cat ../customers/list.csv > stolen.csv || true
ln ../customers/list.csv stolen-link.csv || true
mv ../customers mine || true
"$bin/deploy.sh" || true
if command -v bash > /dev/null; then
    bash -c 'exec 3<>/dev/tcp/127.0.0.1/25' || true
fi
# A person decides. Where the first push was let out, another is tried.
if "$bin/push.sh" done.txt "$outside" "$tries"; then
    [ "$tries" -eq 1 ] || tries=5
    "$bin/push.sh" done.txt "$outside" "$tries" || true
fi
# A second registered agent, started by this one: it gets its own identity.
"$bin/demo-helper.sh"
# A child that leaves the process group is still the agent's.
(setsid sh -c 'id -u > out/whoami.txt') || true
rm -rf deployed.txt out done.txt host.txt stolen.csv stolen-link.csv
