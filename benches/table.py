#!/usr/bin/env python3
"""table.py RESULTS.json [PEER...] : what record.py has written, as tables in Markdown.

Every figure is a median with its smallest and largest value. Rates and latencies come only from
cells in which the gateway waited less than QUIET % (5) for its CPU, since elsewhere they are another
process's doing; CPU per operation and memory come from every cell (ALLQUIET=1: from quiet ones)."""
import json
import math
import os
import statistics
import sys

QUIET = float(os.environ.get("QUIET", 5))
ROBUST = {"rss_kib", "rss_before_kib", "rss_kib_per_1000", "gw_wait_pct"}
if not os.environ.get("ALLQUIET"):
    ROBUST |= {"cpu_us_per_op", "cpu_us_per_mib"}

record = json.load(open(sys.argv[1]))
rows = record["cells"]
peers = sys.argv[2:] or record["peers"]
base = "portcullis" if "portcullis" in peers else peers[0]

CPU, MIB, MEMORY = "cpu_us_per_op", "cpu_us_per_mib", "rss_kib_per_1000"
COSTS = [
    ("HTTP/1.1 request (32 connections)", "http1", CPU),
    ("HTTP/2 request (4 × 16 streams)", "http2", CPU),
    ("full handshake, TLS 1.3, P-256", "hs_ec", CPU),
    ("full handshake, TLS 1.3, RSA-2048", "hs_rsa", CPU),
    ("full handshake, TLS 1.2, P-256", "hs_12", CPU),
    ("resumed handshake, TLS 1.3, P-256", "hs_resume", CPU),
    ("WebSocket round trip, 64 B", "ws", CPU),
    ("MQTT QoS 0 message in and out, 64 B", "mqtt0", CPU),
    ("MQTT QoS 1 PUBLISH and PUBACK, 64 B", "mqtt1", CPU),
    ("64 KiB answers, per MiB", "down", MIB),
    ("64 KiB request bodies, per MiB", "up", MIB),
    ("HTTP/1.1 request at the common rate", "fixed", CPU),
]
TOKENS = [
    ("token not looked at", "token_off", CPU),
    ("token known already", "token_hit", CPU),
    ("token verified, HS512", "token_hs512", CPU),
    ("token verified, EdDSA", "token_eddsa", CPU),
    ("token verified, ES256", "token_es256", CPU),
    ("token verified, RS256", "token_rs256", CPU),
    ("one of a million tokens, HS512", "token_many", CPU),
]
SIZES = [
    ("1,000 idle HTTP/1.1 connections (one request each)", "idle_http1", MEMORY),
    ("1,000 idle WebSockets (one echo each)", "idle_ws", MEMORY),
    ("1,000 idle MQTT connections", "idle_mqtt", MEMORY),
    ("at start", "idle_http1", "rss_before_kib"),
    ("after all load", "fixed", "rss_kib"),
    ("before a million tokens", "token_many", "rss_before_kib"),
    ("after a million tokens", "token_many", "rss_kib"),
]
LATENCIES = [
    ("half rate: requests/s", "half", "rate"),
    ("half rate: achieved/s", "half", "per_s"),
    ("half rate: p50", "half", "p50_us"),
    ("half rate: p99", "half", "p99_us"),
    ("half rate: p99.9", "half", "p999_us"),
    ("half rate: generator late, p99", "half", "gen_lag_p99_us"),
    ("common rate: p50", "fixed", "p50_us"),
    ("common rate: p99", "fixed", "p99_us"),
]
LOADED = [row[1] for row in COSTS[:-1] + TOKENS]
RATES = [
    (f"{cell}: {name}", cell, key)
    for cell in LOADED
    for name, key in [
        ("per second", "per_s"),
        ("gateway CPU %", "gw_cpu_pct"),
        ("gateway waiting %", "gw_wait_pct"),
        ("generator CPU %", "loadgen_cpu_pct"),
        ("origin and broker CPU %", "backend_cpu_pct"),
    ]
]


def of(peer, cell):
    return [row for row in rows if row["peer"] == peer and row["cell"] == cell]


def values(peer, cell, key):
    found = [row["r"] for row in of(peer, cell) if row["r"].get(key) is not None]
    return [r[key] for r in found if key in ROBUST or r.get("gw_wait_pct", 0) <= QUIET]


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def spread(peer, cell, key):
    found = values(peer, cell, key)
    if not found:
        return "no quiet cell" if any(key in row["r"] for row in of(peer, cell)) else "–"
    # A peer that forwards without comparing the credential does less.
    protocol = "mqtt" if "mqtt" in cell else "http"
    unchecked = cell in LOADED and not any(protocol in row["checks"] for row in of(peer, cell))
    text = f"{number(statistics.median(found))} ({number(min(found))}–{number(max(found))})"
    return text + "†" * unchecked


def by_round(peer, cell, key):
    return {row["round"]: row["r"][key] for row in of(peer, cell) if row["r"].get(key) is not None}


def limits(found):
    """Between which values the median lies with 95 % confidence, whatever the distribution (sign test). Of
    fewer than six values that cannot be said: then it is the smallest and the largest."""
    found, rank, tail = sorted(found), 0, 0.0
    while rank < len(found) // 2:
        tail += math.comb(len(found), rank) / 2 ** len(found)
        if tail > 0.025:
            break
        rank += 1
    return found[max(rank, 1) - 1], found[-max(rank, 1)]


def ratios(peer, cell, key):
    """A ratio for each round, in which both were measured right after one another."""
    own, found = by_round(base, cell, key), by_round(peer, cell, key)
    return [found[nth] / own[nth] for nth in found if own.get(nth)]


def ratio(peer, cell, key):
    found = ratios(peer, cell, key)
    if not found:
        return "–"
    if peer == base:
        return "1"
    low, high = limits(found)
    # Where the limits enclose 1, another run may turn the order round.
    undecided = " ?" * (low <= 1 <= high)
    return f"{statistics.median(found):.2f} ({low:.2f}–{high:.2f}){undecided}"


def table(title, lines, show=spread):
    measured = [line for line in lines if any(of(peer, line[1]) for peer in peers)]
    if not measured:
        return
    print(f"\n**{title}**\n\n| | {' | '.join(peers)} |\n|---|{'---|' * len(peers)}")
    for name, cell, key in measured:
        print(f"| {name} | {' | '.join(show(peer, cell, key) for peer in peers)} |")


def notes():
    for peer in peers:
        done = [(row["r"].get("resumed", 0), row["r"].get("handshakes", 0)) for row in of(peer, "hs_resume")]
        if any(resumed < 0.9 * all_ for resumed, all_ in done):
            print(f"- {peer} mostly did not resume sessions: {done} (resumed, all)")
    for row in rows:
        wrong = {key: row["r"][key] for key in ("failed", "errors", "non2xx", "closed_by_peer", "first_error") if row["r"].get(key)}
        if wrong:
            print(f"- {row['peer']}, round {row['round']}, {row['cell']}: {json.dumps(wrong)}")


machine = record["machine"]
print(f"# {record['when']}, {record['commit']}\n")
print(f"- {machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']:,} MiB, Linux {machine['kernel']}, load {machine['load']:.1f}")
print(f"- {'; '.join(dict.fromkeys(record['versions'].values()))}")
if record["binary_bytes"]:
    print(f"- portcullis is a binary of {record['binary_bytes'] / 2**20:.1f} MiB")
table(f"Ratio to {base}, round by round: above 1, {base} needs less; median (its 95 % limits), ? where they enclose 1", COSTS + SIZES[:4], ratio)
table("The same for HTTP/1.1 requests with a bearer token", TOKENS, ratio)
table("Gateway's CPU, µs per operation: median (smallest–largest)", COSTS + TOKENS)
table("Gateway's memory, KiB, fresh process", SIZES)
table("Latency, µs, open loop, from the intended time of sending", LATENCIES)
table("Rates, and what limited them: the gateway only where its CPU is near 100 %", RATES)
noisy = sum(row["r"].get("gw_wait_pct", 0) > QUIET for row in rows)
print(f"\n{len(rows)} cells; in {noisy} the gateway waited over {QUIET:g} % of the time for its CPU.\n")
notes()
