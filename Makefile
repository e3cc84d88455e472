# The front desk: `make` alone says what there is.

.DEFAULT_GOAL := help
.PHONY: help run test test-compose check fmt fuzz bench certs ca server_cert client_cert

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z_ -]+:.*## / { printf "  make %-34s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run the gateway with stand-in adapters and certificates, and print commands to try
	@scripts/run.sh

test: ## Run every test, installing what they need; ends in one summary
	@scripts/test.sh

check: ## Formatting, lints, documentation, dependencies
	@scripts/check.sh

fmt: ## Format the code
	cargo fmt

test-compose: ## The specification's commands against docker/docker-compose.yml, in both modes
	@scripts/test-compose.sh

fuzz: ## Fuzz the parsers, each for FUZZ_SECONDS (60)
	@scripts/fuzz.sh

bench: ## CPU and memory for each operation, beside nginx, HAProxy and others
	@scripts/bench.sh

certs: ## An authority, a server's and a device's certificate in certs/, if there are none
	@test -e certs/ca.crt || $(MAKE) --no-print-directory ca
	@test -e certs/portcullis-server.crt || $(MAKE) --no-print-directory server_cert
	@test -e certs/client.crt || $(MAKE) --no-print-directory client_cert

# Their variables: `make -C docker/ssl` explains them. CRT_LOCATION is a path from docker/ssl.
ca: ## A self-signed certificate authority, for 3 years
server_cert: ## The gateway's certificate, for 1000 days
client_cert: ## A device's certificate with CLIENT_SECRET in its CN, for 2 years; more: make -C docker/ssl
ca server_cert client_cert:
	@$(MAKE) --no-print-directory -C docker/ssl $@
