# What stands for the image debian:12-slim: there is no registry.
bin/debian.tar:
	@echo building $@; mkdir -p bin; root=$$(mktemp -d) && trap 'rm -rf "$$root"' EXIT && \
		debootstrap --variant=minbase bookworm "$$root" >bin/debootstrap.log && tar -C "$$root" -cf $@ .
.PHONY: e2e-podman packages-podman
e2e-podman: packages-podman build tools bin/debian.tar ## a real Podman, with CNI and with Netavark, and the Dockerfile, two minutes; as root
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 10m -run 'TestPodman|TestNetavark' .
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 5m ./dockerfile
packages-podman:
	@sh dist/packages.sh iptables podman crun conmon /usr/lib/podman/netavark debootstrap systemd-analyze ip
