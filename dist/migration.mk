# flanneld needs cgo for its userspace backend, which is not used here.
bin/flanneld: dist/migration/flannel/go.mod dist/migration/flannel/go.sum
	@echo building $@; cd dist/migration/flannel && \
		version=$$(GOWORK=off $(GO) list -m -f '{{.Version}}' github.com/flannel-io/flannel) && \
		GOWORK=off CGO_ENABLED=1 $(RUN_GO) build -trimpath \
		-ldflags "$(LDFLAGS) -X github.com/flannel-io/flannel/pkg/version.Version=$$version" \
		-o ../../../$@ github.com/flannel-io/flannel
# What else is in flannel's images, and its manifest, of the same version.
bin/flannel/install-conf: dist/migration/flannel/go.mod dist/migration/flannel/go.sum
	@echo building $@; cd dist/migration/flannel && \
		GOWORK=off $(STATIC) -ldflags '$(LDFLAGS)' -o ../../../$@ github.com/flannel-io/flannel/cmd/install_conf
bin/flannel/kube-flannel.yml: dist/migration/flannel/go.mod bin/flannel/install-conf # which downloads the module
	@echo copying $@; cd dist/migration/flannel && \
		dir=$$(GOWORK=off $(GO) list -m -f '{{.Dir}}' github.com/flannel-io/flannel) && \
		cat "$$dir/Documentation/kube-flannel.yml" >../../../$@
bin/flannel/flannel: dist/migration/plugin/go.mod dist/migration/plugin/go.sum
	@echo building $@; cd dist/migration/plugin && GOWORK=off $(STATIC) -ldflags '$(LDFLAGS)' \
		-o ../../../$@ github.com/containernetworking/plugins/plugins/meta/flannel
KUBE_FLANNEL = bin/flanneld $(addprefix bin/flannel/,flannel install-conf kube-flannel.yml)

# The leases in etcd come first: that needs less of the machine.
.PHONY: e2e-migration e2e-migration-etcd e2e-migration-kubernetes packages-migration
e2e-migration: ## migrate nodes from a real flannel and back under traffic, leases in etcd and in Kubernetes
	@$(MAKE) --no-print-directory e2e-migration-etcd
	@$(MAKE) --no-print-directory e2e-migration-kubernetes
e2e-migration-etcd: packages-migration build tools bin/flanneld bin/flannel/flannel
	@cd dist/migration && $(RUN_GO) test -count=1 -timeout 30m -v .
MIGRATION_FAMILIES ?= ipv4 dual
e2e-migration-kubernetes: packages-migration packages-kubernetes build tools image $(KUBERNETES) $(KUBE_FLANNEL) k8slab
	@set -e; for families in $(MIGRATION_FAMILIES); do echo "families: $$families"; \
		bin/k8s/k8slab --migrate --families $$families $(K8SLAB); done
packages-migration:
	@sh dist/packages.sh iptables nft gcc ip
