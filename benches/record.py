#!/usr/bin/env python3
"""record.py LINES OUT PEER... : run.sh's lines with the machine, the versions and the settings, as one JSON file."""
import json
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
VERSIONS = {
    "portcullis": [os.environ.get("PORTCULLIS", "portcullis"), "version"],
    "nginx": ["nginx", "-v"],
    "nginx-plain": ["nginx", "-v"],
    "haproxy": ["haproxy", "-v"],
    "haproxy-told": ["haproxy", "-v"],
    "envoy": [os.environ.get("ENVOY", "envoy"), "--version"],
    "caddy": ["caddy", "version"],
    "relay": ["sed", "-n", '/^name = "rustls"$/{n;s/version/relay: rustls/p}', f"{HERE}/loadgen/Cargo.lock"],
}


def said(command):
    """The first line that a program says, on either stream."""
    try:
        run = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20)
        first = next((line.strip() for line in run.stdout.splitlines() if line.strip()), "")
        # Some begin with where they stand.
        return first.replace(command[0], pathlib.Path(command[0]).name)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


lines, out, *peers = sys.argv[1:]
record = {
    # Of the last measurement.
    "when": said(["date", "-u", "-r", lines, "+%Y-%m-%d %H:%M UTC"]),
    "commit": said(["git", "describe", "--always", "--dirty"]),
    "machine": {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "load": os.getloadavg()[2],
    },
    "versions": {peer: said(VERSIONS[peer]) for peer in peers}
    | {"openssl": said(["openssl", "version"]), "rustc": said(["rustc", "--version"])},
    "binary_bytes": os.path.getsize(os.environ["PORTCULLIS"]) if "PORTCULLIS" in os.environ else None,
    "settings": {name: os.environ.get(name) for name in ("SECS", "ROUNDS", "RATE", "CELLS")},
    "peers": peers,
    "cells": [json.loads(line) for line in open(lines) if line.strip()],
}
pathlib.Path(out).write_text(json.dumps(record, indent=1) + "\n")
