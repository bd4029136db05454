# What one does with this repository. `make help` lists it.

PREFIX  ?= /usr/local
DESTDIR ?=
ARGS    ?=

target := $(or $(CARGO_TARGET_DIR),target)
# Where the three programs lie side by side, as they would be installed.
bin    := $(target)/banger/bin
man    := $(target)/banger/man
share  := $(DESTDIR)$(PREFIX)/share
# Debian's zsh looks in one place of packages and in another of the machine's own.
zsh    := $(share)/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
# The agent must run in any guest, with whatever C library or none, so it is the one program that is linked statically.
static := x86_64-unknown-linux-gnu

.PHONY: help quickstart man book build check format lints fuzz-check style licences test-packages test openapi contract fuzz fuzz-long bench-packages bench-create bench-channel bench-several bench-net bench-against install uninstall clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: ## from nothing to a command's output from inside a virtual machine (root)
	@scripts/quickstart $(ARGS)

man: ## the manual's pages, in target/banger/man
	@cargo build --release --locked --quiet -p banger -p bangerd -p banger-manual
	@rm -rf $(man) && install -d $(man)
	@$(target)/release/banger-manual man $(man)

# Its reference is made anew each time and not checked in: so it cannot be out of date, and a change of a help text is one diff.
book: ## the book, in target/book
	@cargo build --release --locked --quiet -p banger -p bangerd -p banger-manual
	@scripts/book

build: ## the three programs, in release mode
	@cargo build --release --locked --quiet -p banger -p bangerd
	@RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile agent --locked --quiet -p banger-agent --target $(static)
	@install -d $(bin)
	@install -C $(target)/release/banger $(target)/release/bangerd $(target)/$(static)/agent/banger-agent $(bin)

check: ## format, lints, style, licences; nothing is started
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target format lints fuzz-check style licences

# The parts of `check`, which runs them in parallel.
format:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

lints:
	cargo clippy --workspace --all-targets --locked -- -D warnings

fuzz-check:
	RUSTFLAGS='--cfg fuzzing' cargo check --quiet --locked --bins --manifest-path fuzz/Cargo.toml --target-dir $(target)/fuzz-check

style:
	python3 -m unittest discover --quiet --start-directory tests/style

licences:
	scripts/check-licences

# What is missing and cannot be installed here is named, and the tests that need it say that they are skipped.
test-packages:
	@scripts/install-packages --test || echo "make: the tests go on without these packages"

test: test-packages ## every test that can run here; the last line has the totals (guests need root)
	@scripts/test $(ARGS)

openapi: ## docs/openapi.json anew, after the API has changed
	@BANGER_BLESS=1 cargo test --quiet --locked -p bangerd --lib openapi

contract: test-packages ## the daemon against its own document: thousands of requests, good and bad (root)
	@scripts/test contract

fuzz: ## damaged and hostile input, 20 seconds a target; ARGS="[--seconds N] [--runs N] [TARGET]..." (nightly toolchain)
	@scripts/fuzz $(ARGS)

fuzz-long: ## the same for longer: ten million runs or 20 minutes a target; ARGS="[TARGET]..." (nightly toolchain)
	@scripts/fuzz --fast --runs 10000000 --seconds 1200 $(ARGS)

bench-packages:
	@scripts/install-packages --bench

bench-create: bench-packages build ## time from create to the first command's output, against bare QEMU; ARGS="--runs N [--json]" (root)
	@python3 bench/create.py $(ARGS)

bench-channel: bench-packages build ## commands and copies through banger against the bare channel; ARGS="--runs N [--json]" (root)
	@python3 bench/channel.py $(ARGS)

bench-several: bench-packages build ## many VMs by one command against one after the other; ARGS="--vms N [--json]" (root)
	@python3 bench/several.py $(ARGS)

bench-net: bench-packages build ## what networks cost: TAPs, rules, names, throughput; ARGS="--runs N [--json]" (root)
	@python3 bench/net.py $(ARGS)

bench-against: bench-packages build ## this build against another checkout's, pair by pair; ARGS="DIR [--pairs N] [--only PART] [--json]" (root)
	@python3 bench/against.py $(ARGS)

install: build man ## into PREFIX (/usr/local), with manual and completion; honours DESTDIR
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(bin)/banger $(bin)/bangerd
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/libexec/banger $(bin)/banger-agent
	install -D -m 644 -t $(share)/man/man1 $(man)/*.1
	install -D -m 644 -t $(share)/man/man5 $(man)/*.5
	install -D -m 644 -t $(share)/man/man8 $(man)/*.8
	install -D -m 644 crates/cli/completions/banger.bash $(share)/bash-completion/completions/banger
	install -D -m 644 -t $(zsh) crates/cli/completions/_banger
	install -D -m 644 -t $(share)/fish/vendor_completions.d crates/cli/completions/banger.fish

uninstall: ## exactly what install put there; VMs, images and logs stay
	rm -f $(DESTDIR)$(PREFIX)/bin/banger $(DESTDIR)$(PREFIX)/bin/bangerd $(DESTDIR)$(PREFIX)/libexec/banger/banger-agent
	rm -f $(share)/man/man1/banger.1 $(share)/man/man1/banger-*.1 $(share)/man/man5/banger-config.5 $(share)/man/man8/bangerd.8
	rm -f $(share)/bash-completion/completions/banger $(zsh)/_banger $(share)/fish/vendor_completions.d/banger.fish
	-rmdir --ignore-fail-on-non-empty $(DESTDIR)$(PREFIX)/libexec/banger

clean: ## everything that was built; VMs, images and logs stay
	cargo clean
	rm -rf fuzz/target
