# A whole Debian that the package is installed on.
bin/debian-systemd.tar:
	@echo building $@; mkdir -p bin; root=$$(mktemp -d) && trap 'rm -rf "$$root"' EXIT && \
		debootstrap --variant=minbase --include=systemd-sysv,dbus,iproute2,iputils-ping bookworm "$$root" \
			>bin/debootstrap.log && rm -rf "$$root"/dev/* "$$root"/var/cache/apt/archives/*.deb && \
		tar -C "$$root" -cf $@.tmp . && mv $@.tmp $@
.PHONY: e2e-debian packages-debian
e2e-debian: packages-debian build tools bin/cnitool bin/staticcheck bin/debian-systemd.tar
e2e-debian: ## test the Debian package on a whole Debian with systemd; as root; 1 minute
	@cd dist/debian && $(RUN_GO) vet ./... && ../../bin/staticcheck ./... && $(RUN_GO) test -count=1 -v .
packages-debian:
	@sh dist/packages.sh iptables nft debootstrap systemd-analyze ip
