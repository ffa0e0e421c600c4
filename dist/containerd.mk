CONTAINERD = bin/containerd/containerd bin/containerd/containerd-shim-runc-v2 bin/containerd/ctr
$(CONTAINERD): bin/containerd/%: dist/containerd/runtime/go.mod dist/containerd/runtime/go.sum
	@echo building $@; cd dist/containerd/runtime && \
		GOWORK=off $(STATIC) -ldflags '$(LDFLAGS)' -o ../../../$@ github.com/containerd/containerd/v2/cmd/$*

# Debian's containerd, version 1.6, then version 2: they differ in when a node is ready.
.PHONY: e2e-containerd packages-containerd
e2e-containerd: packages-containerd build tools $(CONTAINERD)
e2e-containerd: ## test with a real containerd, with the DaemonSet and systemd; as root
	@cd dist/containerd && $(RUN_GO) test -count=1 -timeout 30m .
	@cd dist/containerd && $(RUN_GO) test -count=1 -timeout 30m -run 'TestContainerd|TestDaemonSet|TestK3s' \
		. -args -dir $(CURDIR)/bin/containerd
packages-containerd:
	@sh dist/packages.sh iptables containerd runc systemd-analyze
