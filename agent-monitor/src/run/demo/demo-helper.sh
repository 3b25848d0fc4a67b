#!/bin/sh
# The demo's nested agent.
ls -l . > listing.txt
grep -c txt listing.txt > /dev/null || true
rm listing.txt
