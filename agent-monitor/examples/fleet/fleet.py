#!/usr/bin/env python3
"""Which shadow agents are in a fleet, on how many hosts, and whose.

Collect one file per host with whatever you already run, for instance

    ansible all -b -m shell -a 'agent-monitor sweep -o jsonl' --tree collected/

and join them here:  fleet.py collected/          (needs duckdb from PyPI)
"""

import json
import pathlib
import sys

import duckdb

SQL = pathlib.Path(__file__).with_name("fleet.sql").read_text(encoding="utf-8")


def main() -> int:
    as_json = "--json" in sys.argv[1:]
    places = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    if len(places) != 1:
        print("usage: fleet.py [--json] DIRECTORY", file=sys.stderr)
        return 2
    files = str(pathlib.Path(places[0]) / "*.jsonl")
    answer = duckdb.connect().execute(SQL, [files])
    names = [column[0] for column in answer.description]
    rows = [dict(zip(names, row)) for row in answer.fetchall()]
    if as_json:
        print(json.dumps(rows, default=str))
        return 0
    print(f"{'AGENT':<28}{'OWNER':<16}{'HOSTS':>6}  {'STATE':<12}{'VERSIONS':<24}RISKS")
    for row in rows:
        versions = ", ".join(row["versions"][:3])
        risks = " ".join(row["risks"])
        print(f"{row['name']:<28}{row['owner']:<16}{row['hosts']:>6}  {row['state']:<12}{versions:<24}{risks}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
