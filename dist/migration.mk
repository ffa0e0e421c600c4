# flanneld needs cgo for its userspace backend, which is not used here.
bin/flanneld: dist/migration/flannel/go.mod dist/migration/flannel/go.sum
	@echo building $@; cd dist/migration/flannel && \
		version=$$(GOWORK=off $(GO) list -m -f '{{.Version}}' github.com/flannel-io/flannel) && \
		GOWORK=off CGO_ENABLED=1 $(RUN_GO) build -trimpath \
		-ldflags "$(LDFLAGS) -X github.com/flannel-io/flannel/pkg/version.Version=$$version" \
		-o ../../../$@ github.com/flannel-io/flannel
.PHONY: e2e-migration packages-migration
e2e-migration: packages-migration build tools bin/flanneld
e2e-migration: ## migrate nodes from a real flannel and back under traffic
	@cd dist/migration && $(RUN_GO) test -count=1 -timeout 30m -v .
packages-migration:
	@sh dist/packages.sh iptables nft gcc ip
