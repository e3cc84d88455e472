#!/usr/bin/env python3
"""requests.py PORT CERTS COUNT : COUNT requests one after the other on one connection over mutual TLS."""
import http.client
import ssl
import sys

port, certs, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
context = ssl.create_default_context(cafile=f"{certs}/ca.pem")
context.load_cert_chain(f"{certs}/client.pem", f"{certs}/client.key")
connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=60)
for _ in range(count):
    connection.request("GET", "/")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status
