# `make run` serves the LAN, `make test` checks everything; each sets up what it needs on Debian.

export PATH := $(PATH):$(HOME)/.cargo/bin
MDBOOK := 0.5.4
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help run test fuzz bench demo build static docs clean

help:
	@echo "make run     serve the machines on this LAN (root, for the ports 67 and 69)"
	@echo "make demo    boot three machines in QEMU through reveille, and watch"
	@echo "make test    format, lints, documentation, unit tests, the lab and the fuzz targets"
	@echo "make fuzz    any bytes into the decoders, the DHCP answers and a TFTP transfer, FUZZ_SECONDS (60) each"
	@echo "make bench   ours beside nginx, dnsmasq and other TFTP servers, as ratios; offers under load and floods; configs of many machines"
	@echo "make docs    the book: target/book/index.html, with its links checked"
	@echo "make static  one static binary: target/x86_64-unknown-linux-musl/release/reveille"

run: build
	$(SUDO) target/release/reveille serve $(ARGS)

build:
	dev/setup run
	cargo build --release --locked

static:
	dev/setup static
	rustup target add x86_64-unknown-linux-musl
	cargo build --release --locked --target x86_64-unknown-linux-musl

docs:
	command -v mdbook >/dev/null || { dev/setup run && cargo install mdbook --version $(MDBOOK) --locked; }
	mdbook build docs
	dev/check-links target/book

demo:
	dev/setup test
	cargo test --locked --test demo

test:
	dev/setup test
	cargo fmt --check
	dev/circles-test
	dev/circles --quiet \
		--order 'reveille: cli > daemon > server admin > config > simulate nbps > state > factory > http_client > sys > pure' \
		--order 'reveille::pure: dhcp tftp config > script > boot > machine > event > image_source > catalog > client > printable nearest redact checksum rate_limit talos_schematic'
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	cargo test --locked --doc
	cargo test --locked --lib --tests -- --test-threads=8
	cd fuzz && cargo fmt --check
	dev/fuzz

fuzz:
	dev/setup test
	dev/fuzz

bench:
	dev/setup bench
	cargo bench --locked --bench serving
	cargo bench --locked --bench transfers
	cargo bench --locked --bench offers
	cargo bench --locked --bench scripts
	cargo bench --locked --bench profiles
	cargo bench --locked --bench registry

clean:
	cargo clean
