# The installed Docker, or Debian's, then version 29, which drops more traffic. Its runc is linked with C.
DOCKER = bin/docker/dockerd bin/docker/docker-proxy bin/docker/runc
bin/docker/dockerd bin/docker/docker-proxy: bin/docker/%: dist/engines/runtime/go.mod dist/engines/runtime/go.sum
	@echo building $@; cd dist/engines/runtime && \
		GOWORK=off $(STATIC) -ldflags '$(LDFLAGS)' -o ../../../$@ github.com/moby/moby/v2/cmd/$*
bin/docker/runc: dist/engines/runtime/go.mod dist/engines/runtime/go.sum
	@echo building $@; cd dist/engines/runtime && \
		GOWORK=off CGO_ENABLED=1 $(RUN_GO) build -trimpath -ldflags '$(LDFLAGS)' -o ../../../$@ github.com/opencontainers/runc
.PHONY: e2e-docker packages-docker
e2e-docker: packages-docker build tools $(DOCKER)
e2e-docker: ## test with a real Docker and our drop-in, under systemd; as root; 4 minutes
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 30m -run TestDocker .
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 30m -run 'TestDocker$$|TestDockerWaits' \
		. -args -docker $(CURDIR)/bin/docker
packages-docker:
	@sh dist/packages.sh iptables dockerd containerd runc gcc systemd-analyze ip
