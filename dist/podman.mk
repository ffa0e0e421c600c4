# A replacement for the image debian:12-slim, which needs no registry.
bin/debian.tar:
	@echo building $@; mkdir -p bin; root=$$(mktemp -d) && trap 'rm -rf "$$root"' EXIT && \
		debootstrap --variant=minbase bookworm "$$root" >bin/debootstrap.log && tar -C "$$root" -cf $@ .
.PHONY: e2e-podman packages-podman
e2e-podman: packages-podman build tools bin/debian.tar
e2e-podman: ## test with a real Podman, CNI and Netavark, and the Dockerfile; as root; 2 minutes
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 30m -run 'TestPodman|TestNetavark' .
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 30m ./dockerfile
packages-podman:
	@sh dist/packages.sh iptables podman crun conmon /usr/lib/podman/netavark debootstrap systemd-analyze ip
