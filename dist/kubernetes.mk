# Kubernetes is a separate module, so its dependencies bind no other module. The first build takes some minutes.
KUBERNETES = $(addprefix bin/k8s/,kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)
$(KUBERNETES): bin/k8s/%: dist/k8slab/tools/go.mod dist/k8slab/tools/go.sum
	@echo building $@; cd dist/k8slab/tools && \
		version=$$(GOWORK=off $(GO) list -m -f '{{.Version}}' k8s.io/kubernetes) && \
		GOWORK=off CGO_ENABLED=0 $(RUN_GO) build -o ../../../$@ \
		-ldflags "$(LDFLAGS) -X k8s.io/component-base/version.gitVersion=$$version" k8s.io/kubernetes/cmd/$*
.PHONY: test-kube k8slab e2e-kubernetes packages-kubernetes
test-kube: build tools bin/k8s/kube-apiserver ## test store and manifest with a real kube-apiserver; 5 minutes
	@SELVAGE_TEST_KUBE=1 $(RUN_GO) test -count=1 ./subnet/kube/... ./network/feed
	@$(RUN_GO) test -count=1 -tags kube ./dist/kubernetes
	@cd dist/bench && SELVAGE_TEST_KUBE=1 $(RUN_GO) test -count=1 -run TestKube .
k8slab: # the suite, and the programs of its pods
	@echo building bin/k8s/k8slab; cd dist/k8slab && \
		$(STATIC) -ldflags '$(LDFLAGS)' -o ../../bin/k8s/ ./cmd/k8slab ./cmd/agent
	@cd dist/containerd && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../bin/k8s/ ./cmd/pod
K8SLAB_STORES ?= kubernetes etcd
e2e-kubernetes: packages-kubernetes build tools bin/etcdutl image $(KUBERNETES) k8slab
e2e-kubernetes: ## test with a real Kubernetes, dual stack, both stores; as root; 15 minutes
	@set -e; for store in $(K8SLAB_STORES); do echo "store: $$store"; bin/k8s/k8slab --store $$store $(K8SLAB); done
packages-kubernetes:
	@sh dist/packages.sh iptables nft containerd runc
