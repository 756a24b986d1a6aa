# `make help` lists what there is. Everything builds with the lock file as it is.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

CARGO ?= cargo
# apt-get needs root: nothing before it when we are root already.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help demo test test-large needs-oidc crs lint bombs testssl bench bench-auth bench-rules bench-detection bench-learning base soak fuzz doc needs-redis needs-pebble needs-testssl needs-nginx needs-modsecurity needs-crs

help: ## Lists the targets.
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 24
	@echo '  STORE=redis make demo runs the demo against a redis-server that it starts.'

demo: ## The whole loop in under two minutes: proxy, log, learn, hot-load, block, review.
	@if [ "$(STORE)" = redis ]; then $(MAKE) --no-print-directory needs-redis; fi
	$(CARGO) build --locked --release -p gateway -p trainer -p tests --bins
	@target/release/demo

test: needs-redis needs-oidc needs-pebble ## Every test: units, properties, and end to end with real processes and a real Redis.
	$(CARGO) build --locked --workspace --all-targets
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; status=0; \
	$(CARGO) test --locked --workspace --no-fail-fast 2>&1 | tee "$$log" || status=$$?; \
	awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
	     END { printf "total: %d passed, %d failed, %d ignored\n", passed, failed, ignored }' "$$log"; \
	exit $$status

test-large: ## Uploads and downloads of 5 GiB, each twice, in constant memory.
	$(CARGO) build --locked -p gateway --bins
	PORTCULLIS_LARGE_MIB=5120 $(CARGO) test --locked -p tests --test e2e large::

crs: $(if $(CRS),,needs-crs) ## The regression tests of the OWASP Core Rule Set: Debian's version 3, or a checkout of 4 in CRS=DIR.
	$(CARGO) build --locked --release -p tests --bin crs
	@target/release/crs $(if $(CRS),--checkout '$(CRS)',--debian target/crs) $(ARGS)

lint: ## Format, clippy without warnings, documentation without warnings, licences and sources.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --offline --locked check bans licenses sources; \
	else \
	  echo 'cargo-deny is not installed: licences, bans and sources were NOT checked (cargo install --locked cargo-deny)'; \
	fi

bombs: ## What the dearest requests of up to 1 MiB cost a release build; BOMB_MS=50 is the limit that they are held to.
	$(CARGO) build --locked --release -p gateway --bins
	$(CARGO) build --locked -p gateway -p trainer --bins
	PORTCULLIS_BIN_DIR='$(CURDIR)/target/release' BOMB_MS=$${BOMB_MS:-50} $(CARGO) test --locked -p tests --test e2e -- --nocapture no_request_costs_much

testssl: needs-testssl ## Grades the default TLS listener with testssl.sh; fails below A, or with a finding above LOW.
	$(CARGO) build --locked -p gateway -p tests --bin gateway --bin testssl
	@target/debug/testssl

bench: needs-nginx ## CPU time a request costs, beside nginx in the same run.
	$(CARGO) build --locked --release -p gateway -p trainer -p tests --bins
	@target/release/bench

bench-auth: ## What authentication adds to a request, in process.
	$(CARGO) run --locked --release -p gateway --example auth_cost

bench-rules: needs-nginx needs-modsecurity needs-crs ## CPU time that rules cost, beside nginx with ModSecurity; CRS=DIR adds version 4.
	$(CARGO) build --locked --release -p gateway -p trainer -p tests --bins
	@target/release/bench-rules target/crs/binary $(CRS)

bench-detection: ## DATA=DIR [CRS=DIR]: how well our rules tell labelled attacks from ordinary requests.
	@if [ -z "$(DATA)" ]; then echo 'DATA=DIR names a directory of labelled requests (*.jsonl.gz)' >&2; exit 2; fi
	$(CARGO) build --locked --release -p tests --bin detection
	@nice -n 10 target/release/detection "$(DATA)" $(if $(CRS),--crs "$(CRS)") $(OPTIONS)

BASE_FILES := browsing_real prose payload_lists payload_values httpparams ccf_bdci2022 crs_regression_positive csic2010
BASE_HALF := browsing_real prose payload_lists httpparams csic2010
BASE_UNSEEN := payload_values ccf_bdci2022 crs_regression_positive ariel_api_ds1

base: ## Retrains the base knowledge from the labelled files in DATA=DIR; EVALUATE=1 judges it on halves that it never saw, EVALUATE=files on files that it never saw.
	$(CARGO) build --locked --release -p trainer --bin trainer
	target/release/trainer base --rules builtin \
	  --input $(foreach name,$(if $(filter files,$(EVALUATE)),$(BASE_HALF),$(BASE_FILES)),$(DATA)/$(name).jsonl.gz) \
	  $(if $(filter files,$(EVALUATE)),--unseen $(foreach name,$(BASE_UNSEEN),$(DATA)/$(name).jsonl.gz)) \
	  $(if $(EVALUATE),--evaluate,--output waf-model/base/base.model)

bench-learning: ## What the learning is worth and costs; DATA=DIR names labelled files, ONLY=promise,cost picks some.
	$(CARGO) build --locked --release -p tests --bin learning
	@target/release/learning $(DATA)

soak: ## Reloads and new certificates under traffic, and memory over 1,000 reloads and MINUTES=60 of mixed load.
	$(CARGO) build --locked --release -p gateway -p tests --bins
	@target/release/soak $(or $(MINUTES),60)

fuzz: ## Fuzzes everything that parses what a peer wrote; SECONDS_EACH=60 a target.
	@if ! $(CARGO) fuzz --version >/dev/null 2>&1; then \
	  echo 'installing cargo-fuzz'; $(CARGO) install --locked cargo-fuzz; fi
	@cd tests/fuzz && for target in values rules transform bodies detect artifact event segment; do \
	  echo "== $$target"; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir . $$target -- -max_total_time=$(or $(SECONDS_EACH),60) -max_len=65536 || exit 1; \
	done

doc: ## The documentation of the code, in target/doc.
	$(CARGO) doc --locked --workspace --no-deps

# Nothing is installed and no setting of apt is touched: the packages are unpacked below target, and the index of
# source packages is kept there, too.
needs-crs:
	@if [ -d target/crs/source ]; then exit 0; fi; set -e; \
	if ! command -v dpkg-source >/dev/null; then \
	  echo 'installing dpkg-dev with apt-get: it unpacks source packages'; \
	  $(SUDO) apt-get update -qq; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends dpkg-dev; \
	fi; \
	echo 'fetching modsecurity-crs and its source with apt-get, into target/crs'; \
	rm -rf target/crs; mkdir -p target/crs/apt/parts target/crs/apt/lists/partial; cd target/crs; \
	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do \
	  if [ -f "$$file" ]; then sed -n '/^deb /{p;s/^deb /deb-src /p}' "$$file" >>apt/sources.list; fi; \
	done; \
	for file in /etc/apt/sources.list.d/*.sources; do \
	  if [ -f "$$file" ]; then sed 's/^Types:.*/Types: deb deb-src/' "$$file" >"apt/parts/$${file##*/}"; fi; \
	done; touch apt/sources.list; \
	apt="apt-get -qq -o Dir::Etc::SourceList=$$PWD/apt/sources.list -o Dir::Etc::SourceParts=$$PWD/apt/parts -o Dir::State::Lists=$$PWD/apt/lists -o APT::Sandbox::User=$$(id -un)"; \
	$$apt update || true; $$apt download modsecurity-crs; $$apt source --download-only modsecurity-crs; \
	dpkg-deb -x modsecurity-crs_*.deb binary; dpkg-source --no-check -x modsecurity-crs_*.dsc unpacked; mv unpacked source

needs-redis:
	@if command -v redis-server >/dev/null; then :; else \
	  echo 'installing redis-server with apt-get: the tests start their own'; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends redis-server; \
	fi

needs-pebble:
	@if command -v pebble >/dev/null && command -v pebble-challtestsrv >/dev/null; then :; else \
	  echo 'installing pebble with apt-get: tests fetch certificates from it'; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends pebble; \
	fi

needs-testssl:
	@if command -v testssl >/dev/null; then :; else \
	  echo 'installing testssl.sh with apt-get: it grades the TLS listener'; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends testssl.sh; \
	fi

# The provider is unpacked below target, with the versions and digests of its lock file, and none of its scripts runs.
needs-oidc:
	@if cmp -s tests/oidc/package-lock.json target/oidc/package-lock.json && [ -d target/oidc/node_modules/oidc-provider ]; then \
	  cp tests/oidc/provider.mjs target/oidc/; exit 0; fi; set -e; \
	if ! command -v npm >/dev/null || ! command -v node >/dev/null; then \
	  echo 'installing nodejs and npm with apt-get: a test logs in at a real OpenID provider'; \
	  $(SUDO) apt-get update -qq; DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends nodejs npm; \
	fi; \
	echo 'installing oidc-provider with npm, into target/oidc: a test logs in at it'; \
	mkdir -p target/oidc; cp tests/oidc/* target/oidc/; \
	npm ci --prefix target/oidc --ignore-scripts --no-audit --no-fund || \
	  { rm -f target/oidc/package-lock.json; echo 'oidc-provider cannot be installed: the test of browser login will fail' >&2; }

needs-nginx:
	@if [ -x /usr/sbin/nginx ] || command -v nginx >/dev/null; then :; else \
	  echo 'installing nginx with apt-get: the figures are ratios to it'; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends nginx; \
	fi

needs-modsecurity:
	@if [ -f /usr/lib/nginx/modules/ngx_http_modsecurity_module.so ]; then :; else \
	  echo 'installing libnginx-mod-http-modsecurity with apt-get: the figures are ratios to it'; \
	  $(SUDO) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends libnginx-mod-http-modsecurity; \
	fi
