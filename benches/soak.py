#!/usr/bin/env python3
"""soak.py ROUNDS HELD... : what soak.sh has seen, in a few lines; ends with 1 if anything is wrong."""
import json
import sys

rounds = [json.loads(line) for line in open(sys.argv[1])]
held = [json.load(open(name)) for name in sys.argv[2:]]
wrong = []


def total(cell, key):
    return int(sum(row["r"].get(key, 0) for row in rounds if row["cell"] == cell))


def refused(row):
    """How many were let pass that should not have been, or the other way round."""
    r = row["r"]
    passed = r.get("requests", 0) - r.get("non2xx", 0)
    return passed if row["cell"] == "refused" else r.get("non2xx", 0)


requests = sum(total(cell, "requests") for cell in ("http1", "http2", "refused"))
full, resumed = (total(cell, "handshakes") for cell in ("handshake", "resumed"))
print(f"{rounds[-1]['seconds'] // 60} minutes: {requests:,} HTTP requests, {full:,} full and {resumed:,} resumed handshakes,")
print(f"{total('ws', 'roundtrips'):,} WebSocket messages, {total('mqtt', 'messages'):,} MQTT messages")
errors = sum(int(row["r"].get("errors", 0)) for row in rounds) + sum(h["errors"] + h["closed_by_peer"] for h in held)
wrong += [f"{errors} errors"] * bool(errors)
mistaken = sum(refused(row) for row in rounds)
wrong += [f"{mistaken} requests got the wrong answer"] * bool(mistaken)
for what in ("rss_kib", "fds"):
    # By cell, since each holds another number of connections.
    for cell in dict.fromkeys(row["cell"] for row in rounds):
        seen = [row[what] for row in rounds if row["cell"] == cell]
        third = len(seen) // 3
        early, late = max(seen[third : 2 * third] or seen), max(seen[2 * third :])
        print(f"{what} after {cell}: {seen[0]:,} at first, {early:,} in the second third, {late:,} in the last")
        wrong += [f"{what} after {cell} grows from {early:,} to {late:,}"] * (late > 1.05 * early + 8)
print("held all the time: " + ", ".join(f"{int(h['conns'])} {h['mode']}, {int(h['closed_by_peer'])} closed" for h in held))
for line in wrong:
    print(f"FAILED: {line}")
sys.exit(bool(wrong))
