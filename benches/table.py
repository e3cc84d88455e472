#!/usr/bin/env python3
"""table.py RESULTS.jsonl [MORE.jsonl ...] [peer ...] : markdown tables of medians (min-max) from run.sh's results.
Latencies and rates come only from cells in which the gateway waited less than QUIET % (5) for its CPU, since elsewhere
they are another process's doing; CPU per operation and memory come from every cell (ALLQUIET=1: from quiet ones too)."""
import json, os, statistics as st, sys
QUIET = float(os.environ.get("QUIET", 5))
files = [a for a in sys.argv[1:] if a.endswith(".jsonl")]
rows = [json.loads(l) for f in files for l in open(f) if l.strip()]
peers = [a for a in sys.argv[1:] if not a.endswith(".jsonl")] or list(dict.fromkeys(r["peer"] for r in rows))
EVERY = () if os.environ.get("ALLQUIET") else ("cpu_us_per_op", "cpu_us_per_mib", "rss_kib", "rss_before_kib", "rss_kib_per_1000", "gw_wait_pct")  # ALLQUIET=1: CPU per operation from quiet cells too
def vals(p, cell, key):
    return [r["r"][key] for r in rows if r["peer"] == p and r["cell"] == cell and r["r"].get(key) is not None
            and (key in EVERY or r["r"].get("gw_wait_pct", 0) <= QUIET)]
def fmt(x): return f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}"
def med(p, cell, key):
    v = vals(p, cell, key)
    # a dagger: this peer forwards MQTT without comparing the password
    mark = "†" if "mqtt" in cell and not any("mqtt" in r.get("checks", "") for r in rows if r["peer"] == p) else ""
    return f"{fmt(st.median(v))} ({fmt(min(v))}–{fmt(max(v))}){mark}" if v else "no quiet cell" if any(r["peer"] == p and r["cell"] == cell and key in r["r"] for r in rows) else "–"
def table(title, lines):
    print(f"\n{title}\n\n| | " + " | ".join(peers) + " |\n|---|" + "---|" * len(peers))
    for name, cell, key in lines:
        print(f"| {name} | " + " | ".join(med(p, cell, key) for p in peers) + " |")
C = "cpu_us_per_op"
table("**Gateway CPU, µs per operation** (median, min–max)", [
    ("HTTP/1.1 request (32 connections)", "http1", C), ("HTTP/2 request (4×16 streams)", "http2", C),
    ("mTLS 1.3 full handshake, P-256", "hs_ec", C), ("mTLS 1.3 full handshake, RSA-2048", "hs_rsa", C),
    ("mTLS 1.2 full handshake, P-256", "hs_12", C), ("TLS 1.3 resumed handshake, P-256", "hs_resume", C),
    ("WebSocket round trip, 64 B", "ws", C), ("MQTT QoS 0 message in and out, 64 B", "mqtt0", C),
    ("MQTT QoS 1 publish + PUBACK, 64 B", "mqtt1", C),
    ("64 KiB answers, per MiB", "down", "cpu_us_per_mib"), ("64 KiB request bodies, per MiB", "up", "cpu_us_per_mib")])
def ratios(lines):
    """Each peer's median over the first peer's: above 1, the first one needs less."""
    print(f"\n**Ratio to {peers[0]}** (of medians, same run)\n\n| | " + " | ".join(peers) + " |\n|---|" + "---|" * len(peers))
    for name, cell, key in lines:
        own = vals(peers[0], cell, key)
        if own:
            cells = [f"{st.median(v) / st.median(own):.2f}" if (v := vals(p, cell, key)) else "–" for p in peers]
            print(f"| {name} | " + " | ".join(cells) + " |")
ratios([
    ("HTTP/1.1 request", "http1", C), ("HTTP/2 request", "http2", C), ("full handshake, P-256", "hs_ec", C),
    ("full handshake, RSA-2048", "hs_rsa", C), ("resumed handshake", "hs_resume", C), ("WebSocket round trip", "ws", C),
    ("MQTT QoS 0", "mqtt0", C), ("MQTT QoS 1", "mqtt1", C), ("64 KiB answers", "down", "cpu_us_per_mib"),
    ("64 KiB bodies", "up", "cpu_us_per_mib"), ("memory per idle HTTP/1.1", "idle_http1", "rss_kib_per_1000"),
    ("memory per idle WebSocket", "idle_ws", "rss_kib_per_1000"), ("memory per idle MQTT", "idle_mqtt", "rss_kib_per_1000")])
table("**Memory, KiB** (fresh process)", [
    ("RSS at start", "idle_http1", "rss_before_kib"), ("per 1,000 idle HTTP/1.1 (one request each)", "idle_http1", "rss_kib_per_1000"),
    ("per 1,000 idle WebSockets (one echo each)", "idle_ws", "rss_kib_per_1000"), ("per 1,000 idle MQTT", "idle_mqtt", "rss_kib_per_1000"),
    ("RSS after all load cells", "fixed", "rss_kib")])
table("**Latency, µs, open loop** (from the intended send time)", [
    ("rate used for the half-rate rows, /s", "half", "rate"), ("p50 at half rate", "half", "p50_us"), ("p99 at half rate", "half", "p99_us"), ("p99.9 at half rate", "half", "p999_us"),
    ("achieved /s at half rate", "half", "per_s"), ("generator lag p99 at half rate", "half", "gen_lag_p99_us"),
    ("gateway waiting for its CPU %, half rate", "half", "gw_wait_pct"), ("p50 at the common rate", "fixed", "p50_us"), ("p99 at the common rate", "fixed", "p99_us"), ("CPU µs per request at the common rate", "fixed", C)])
L = []
for name, c in [("HTTP/1.1", "http1"), ("HTTP/2", "http2"), ("handshake P-256", "hs_ec"), ("handshake RSA", "hs_rsa"), ("WebSocket", "ws"), ("MQTT QoS 0", "mqtt0"), ("MQTT QoS 1", "mqtt1"), ("64 KiB answers", "down"), ("64 KiB bodies", "up")]:
    L += [(f"{name} /s", c, "per_s"), (f"{name}: gateway CPU %", c, "gw_cpu_pct"), (f"{name}: gateway waiting for its CPU %", c, "gw_wait_pct"), (f"{name}: generator CPU %", c, "loadgen_cpu_pct"), (f"{name}: origin+broker CPU %", c, "backend_cpu_pct")]
table("**Rates, and who was the limit** (a rate is the gateway's own only where its CPU is near 100 %)", L)
bad = [r for r in rows if r["r"].get("failed") or r["r"].get("errors") or r["r"].get("non2xx") or r["r"].get("closed_by_peer")]
noisy = sum(r["r"].get("gw_wait_pct", 0) > QUIET for r in rows)
print(f"\nCells: {len(rows)}; with errors: {len(bad)}; in which the gateway waited over {QUIET:g} % for its CPU: {noisy}")
full = [r for r in rows if r["cell"] == "hs_resume" and r["r"].get("resumed", 0) < 0.9 * r["r"].get("handshakes", 0)]
for p in dict.fromkeys(r["peer"] for r in full): print(f"- {p}: hs_resume mostly not resumed ({[(r['r']['resumed'], r['r']['handshakes']) for r in full if r['peer'] == p]})")
for r in bad: print(f"- {r['peer']} round {r['round']} {r['cell']}: {json.dumps({k: v for k, v in r['r'].items() if k in ('failed','errors','non2xx','first_error','closed_by_peer')})}")
