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

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: help
help: ## Print this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: build
build: ## Build the release binaries.
	$(CARGO) build --workspace --bins --release --locked

.PHONY: demo
demo: ## Show the main job on a private bus; needs no root.
	tests/install-packages build demo
	CARGO="$(CARGO)" demo/run

.PHONY: check
check: ## Everything a change has to pass, except packaging.
	tests/install-packages build demo check
	$(CARGO) fmt --all --check
	tests/lint-shell
	tests/check-links
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(CARGO) build --workspace --locked
	$(CARGO) test --workspace --locked
	tests/interfaces/demo-component.sh
	CARGO="$(CARGO)" tests/demo.sh

.PHONY: check-packages
check-packages: ## The checks of the packaging.
	@echo "check-packages: nothing yet: packaging (debian/, meta-orchestrator/) is not part of the tree"

.PHONY: fmt
fmt: ## Format the Rust code.
	$(CARGO) fmt --all

.PHONY: doc
doc: ## Build the documentation of the crates.
	$(CARGO) doc --workspace --no-deps --locked

.PHONY: dist
dist: ## Make the release archive of the last commit.
	mkdir -p target
	git archive --format=tar.gz --prefix=orchestratord-$(VERSION)/ --output=target/orchestratord-$(VERSION).tar.gz HEAD
	@echo "target/orchestratord-$(VERSION).tar.gz"
