#!/bin/sh
# Pushes FILE out to PORT on loopback. Where a person must be asked and the call cannot be held, it is refused: then
# it is tried again each second, TRIES times.
file=$1 port=$2 tries=$3
push() {
    if command -v bash > /dev/null; then
        bash -c 'cat "$0" > "/dev/tcp/127.0.0.1/$1"' "$file" "$port"
    else
        nc 127.0.0.1 "$port" < "$file"
    fi
}
while ! push; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    sleep 1
done
