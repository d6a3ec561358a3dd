# Everything that is done with this tree, by name: `make help` lists it.

CARGO ?= cargo
INSTALL ?= install

# Where `make install` puts things. Debian, Yocto and people use the same list.
DESTDIR ?=
PREFIX ?= /usr
BINDIR ?= $(PREFIX)/bin
LIBEXECDIR ?= $(PREFIX)/libexec
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Where cargo left the binaries; a cross build says target/<triple>/release.
BUILT ?= target/release
# Writes man pages and completions, so it has to run here; empty leaves them out.
HOST_CTL ?= $(BUILT)/orchestratorctl
# systemd before 253, such as that of Debian 12, knows "notify" only, and no growing RestartSec.
UNIT_TYPE ?= $(shell v=$$(systemctl --version 2>/dev/null | sed -n 's/^systemd \([0-9]*\).*/\1/p'); \
	[ "$${v:-253}" -ge 253 ] && echo notify-reload || echo notify)

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: help
help: ## Print this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: build
build: ## Build the release binaries.
	$(CARGO) build --release --locked -p orchestratord -p orchestratorctl

.PHONY: demo
demo: ## Show the main job on a private bus; needs no root.
	tests/install-packages build demo
	CARGO="$(CARGO)" demo/run

# The tests send signals. A background job of a script has some of them ignored from the start, and so would its children. Most
# tests wait for something most of the time, so there are more at once than processors.
.PHONY: check
check: ## Everything a change has to pass, except packaging.
	tests/install-packages build demo check
	$(CARGO) fmt --all --check
	tests/lint-shell
	tests/check-docs
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(CARGO) build --workspace --locked
	env --default-signal RUST_TEST_THREADS=$$(( 2 * $$(nproc) )) $(CARGO) test --workspace --locked
	tests/interfaces/demo-component.sh
	tests/interfaces/rootfs-image.sh
	tests/interfaces/single-file.sh
	tests/mender/module.sh
	tests/install.sh
	CARGO="$(CARGO)" tests/demo.sh

.PHONY: tour-vplc
tour-vplc: ## Show virtual PLCs on a machine that is booted for it, with a plant beside it; needs root.
	tests/install-packages build demo check
	$(CARGO) build --workspace --locked
	ORCHESTRATOR_TESTS_STRICT=1 env --default-signal $(CARGO) test --quiet --workspace --locked --test tour -- --nocapture

# With less to compute and no strangers to look through in /proc, a point takes a third of the time.
CRASH_BUILD := CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TARGET_DIR=target/crash-matrix
ALONE := $(shell unshare --pid --fork --mount-proc --kill-child true 2>/dev/null && \
	echo unshare --pid --fork --mount-proc --kill-child)

.PHONY: crash-matrix
crash-matrix: ## Let the daemon and the machine die at every single point; takes half an hour.
	tests/install-packages build demo check
	$(CRASH_BUILD) $(CARGO) build --workspace --locked
	$(CRASH_BUILD) CRASH_MATRIX=whole $(ALONE) $(CARGO) test --workspace --locked --test crash_matrix

.PHONY: bench-plan
bench-plan: ## Measure how long planning takes.
	tests/install-packages build
	$(CARGO) run --quiet --locked --profile bench-plan -p orchestratord --example bench-plan

# The flags that a coverage-guided fuzzer needs; all of them are stable.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing
FUZZ_HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
FUZZ_TARGETS ?= artifact sealed-artifact manifest topology configuration answers record
# Seconds for each target.
FUZZ_TIME ?= 300

.PHONY: fuzz
fuzz: ## Search for inputs that do harm; FUZZ_TIME seconds for each of FUZZ_TARGETS.
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --locked --target $(FUZZ_HOST) --manifest-path fuzz/Cargo.toml
	@for target in $(FUZZ_TARGETS); do \
	    mkdir -p fuzz/target/found/$$target fuzz/target/grown/$$target; \
	    echo "== $$target"; \
	    FUZZ_TARGET=$$target fuzz/target/$(FUZZ_HOST)/release/orchestratord-fuzz fuzz/target/grown/$$target \
	        fuzz/corpus/$$target -max_total_time=$(FUZZ_TIME) -max_len=16384 -timeout=25 -rss_limit_mb=3000 \
	        -artifact_prefix=fuzz/target/found/$$target/ -print_final_stats=1 || exit; \
	done

.PHONY: bench
bench: ## Measure against the hardware and other updaters; BENCH_SIZE in MiB and BENCH_RUNS make it quicker.
	tests/install-packages build bench
	$(CARGO) build --release --locked -p orchestratord
	$(CARGO) build --profile bench-program --locked -p orchestrator-tests --bin orchestrator-bench
	target/bench-program/orchestrator-bench

.PHONY: bench-network
bench-network: ## Measure the network domain alone: signals, NICs, and what they leave behind.
	BENCH_ONLY=network $(MAKE) bench

.PHONY: check-packages
check-packages: ## The checks of the packaging.
	tests/install-packages build packages
	tests/packaging/check

check-packages: check-yocto

.PHONY: check-yocto
check-yocto: ## The checks of the Yocto layer.
	tests/yocto/check

.PHONY: deb
deb: ## Build the Debian packages into dist/.
	tests/install-packages build packages
	tests/packaging/build target/packages/first
	mkdir -p dist
	cp target/packages/first/*.deb dist/

# $(call put,mode,file,directory)
put = $(INSTALL) -D -m $(1) -t $(DESTDIR)$(3) $(2)

.PHONY: install
install: ## Install what was built, below DESTDIR.
	@test -x $(BUILT)/orchestratord || { echo "There is no $(BUILT)/orchestratord; run \"make build\" first." >&2; exit 1; }
	$(call put,755,$(BUILT)/orchestratord,$(LIBEXECDIR))
	$(call put,755,$(BUILT)/orchestratorctl,$(BINDIR))
	ln -sf orchestratorctl $(DESTDIR)$(BINDIR)/mender-orchestrator
	$(INSTALL) -d $(DESTDIR)$(UNITDIR) $(DESTDIR)$(DATADIR)/dbus-1/system-services
	umask 022 && sed -e 's,/usr/libexec,$(LIBEXECDIR),' -e 's,^Type=notify-reload$$,Type=$(UNIT_TYPE),' \
	    $(if $(filter notify,$(UNIT_TYPE)),-e '/^ExecStart=/a ExecReload=sh -c "kill -HUP $$MAINPID"' \
	        -e '/^Restart\(Steps\|MaxDelaySec\)=/d') \
	    systemd/orchestratord.service >$(DESTDIR)$(UNITDIR)/orchestratord.service
	umask 022 && sed -e 's,/usr/libexec,$(LIBEXECDIR),' dbus-interfaces/org.orchestratord1.service \
	    >$(DESTDIR)$(DATADIR)/dbus-1/system-services/org.orchestratord1.service
	$(call put,644,dbus-interfaces/org.orchestratord1.conf,$(DATADIR)/dbus-1/system.d)
	$(call put,644,$(wildcard dbus-interfaces/xml/*.xml),$(DATADIR)/dbus-1/interfaces)
	$(call put,644,dbus-interfaces/polkit/org.orchestratord1.policy,$(DATADIR)/polkit-1/actions)
	$(call put,755,$(addprefix interfaces/v1/,rootfs-image single-file vplc-image vplc-program),$(DATADIR)/mender-orchestrator/interfaces/v1)
	$(call put,755,mender/mender-orchestrator-manifest,$(DATADIR)/mender/modules/v3)
	$(call put,755,mender/mender-inventory-mender-orchestrator,$(DATADIR)/mender/inventory)
	$(call put,755,mender/mender-orchestrator-manifest-gen,$(BINDIR))
	umask 022 && sed -e 's,/usr/share,$(DATADIR),' systemd/orchestratord-mender.service \
	    >$(DESTDIR)$(UNITDIR)/orchestratord-mender.service
	$(call put,644,docs/orchestratord.8,$(MANDIR)/man8)
	$(call put,644,docs/mender-orchestrator-manifest-gen.1,$(MANDIR)/man1)
ifneq ($(HOST_CTL),)
	$(INSTALL) -d $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(DATADIR)/bash-completion/completions \
	    $(DESTDIR)$(DATADIR)/zsh/site-functions $(DESTDIR)$(DATADIR)/fish/vendor_completions.d
	umask 022 && $(HOST_CTL) man $(DESTDIR)$(MANDIR)/man1
	umask 022 && for program in orchestratorctl mender-orchestrator; do \
	    $(HOST_CTL) completions bash --program $$program >$(DESTDIR)$(DATADIR)/bash-completion/completions/$$program && \
	    $(HOST_CTL) completions zsh --program $$program >$(DESTDIR)$(DATADIR)/zsh/site-functions/_$$program && \
	    $(HOST_CTL) completions fish --program $$program >$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/$$program.fish || exit; \
	done
endif

.PHONY: install-demo
install-demo: ## Install the Interfaces of the demonstration; not for devices.
	$(call put,755,interfaces/v1/demo-component,$(DATADIR)/mender-orchestrator/interfaces/v1)
	for name in demo-gateway demo-rtos; do \
	    ln -sf demo-component $(DESTDIR)$(DATADIR)/mender-orchestrator/interfaces/v1/$$name || exit; \
	done

.PHONY: fmt
fmt: ## Format the Rust code.
	$(CARGO) fmt --all

.PHONY: doc
doc: ## Build the documentation of the crates.
	$(CARGO) doc --workspace --no-deps --locked

.PHONY: dist
dist: ## Make the release archives of the last commit: the source, and the crates for a build without a network.
	rm -rf target/dist
	mkdir -p target/dist
	git archive --format=tar.gz --prefix=orchestratord-$(VERSION)/ --output=target/orchestratord-$(VERSION).tar.gz HEAD
	tar -C target/dist -xf target/orchestratord-$(VERSION).tar.gz
	cd target/dist/orchestratord-$(VERSION) && $(CARGO) vendor --quiet --locked vendor >/dev/null
	tar -C target/dist --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -czf target/orchestratord-$(VERSION)-vendor.tar.gz \
	    orchestratord-$(VERSION)/vendor
	@echo "target/orchestratord-$(VERSION).tar.gz"
	@echo "target/orchestratord-$(VERSION)-vendor.tar.gz"
