# Kubernetes is a separate module, so its dependencies bind no other module. The first build takes some minutes.
KUBERNETES = $(addprefix bin/k8s/,kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)
$(KUBERNETES): bin/k8s/%: dist/k8slab/tools/go.mod dist/k8slab/tools/go.sum
	@echo building $@; cd dist/k8slab/tools && \
		version=$$(GOWORK=off $(GO) list -m -f '{{.Version}}' k8s.io/kubernetes) && \
		GOWORK=off CGO_ENABLED=0 $(RUN_GO) build -o ../../../$@ \
		-ldflags "$(LDFLAGS) -X k8s.io/component-base/version.gitVersion=$$version" k8s.io/kubernetes/cmd/$*
COREDNS = bin/k8s/coredns
$(COREDNS): dist/k8slab/tools/coredns/main.go dist/k8slab/tools/coredns/go.mod dist/k8slab/tools/coredns/go.sum
	@echo building $@; cd dist/k8slab/tools/coredns && GOWORK=off CGO_ENABLED=0 $(RUN_GO) build \
		-ldflags '$(LDFLAGS)' -o ../../../../$@ .
# Suites of other projects for network policies, and the test program agnhost that their pods run. go vet would check
# all of Kubernetes.
SUITES = $(addprefix bin/k8s/,e2e.test agnhost cyclonus clusterpolicy.test clusterpolicy/crd.yaml test2json)
bin/k8s/e2e.test: dist/k8slab/tools/go.mod dist/k8slab/tools/go.sum
	@echo building $@; cd dist/k8slab/tools && \
		version=$$(GOWORK=off $(GO) list -m -f '{{.Version}}' k8s.io/kubernetes) && \
		GOWORK=off CGO_ENABLED=0 $(RUN_GO) test -c -vet=off -o ../../../$@ \
		-ldflags "$(LDFLAGS) -X k8s.io/component-base/version.gitVersion=$$version" k8s.io/kubernetes/test/e2e
bin/k8s/agnhost: dist/k8slab/tools/go.mod dist/k8slab/tools/go.sum $(wildcard dist/k8slab/sctp/*.go)
	@echo building $@; cd dist/k8slab/tools && GOWORK=off CGO_ENABLED=0 $(RUN_GO) build -o ../../../$@ \
		-ldflags '$(LDFLAGS)' k8s.io/kubernetes/test/images/agnhost
bin/k8s/cyclonus: dist/k8slab/tools/cyclonus/go.mod dist/k8slab/tools/cyclonus/go.sum
	@echo building $@; cd dist/k8slab/tools/cyclonus && GOWORK=off CGO_ENABLED=0 $(RUN_GO) build -o ../../../../$@ \
		-ldflags '$(LDFLAGS)' github.com/mattfenwick/cyclonus/cmd/cyclonus
bin/k8s/clusterpolicy.test: dist/k8slab/tools/clusterpolicy/go.mod dist/k8slab/tools/clusterpolicy/go.sum
	@echo building $@; cd dist/k8slab/tools/clusterpolicy && GOWORK=off CGO_ENABLED=0 $(RUN_GO) test -c -vet=off \
		-o ../../../../$@ -ldflags '$(LDFLAGS)' sigs.k8s.io/network-policy-api/conformance
bin/k8s/clusterpolicy/crd.yaml: dist/k8slab/tools/clusterpolicy/go.mod dist/k8slab/tools/clusterpolicy/go.sum
	@mkdir -p $(@D); cd dist/k8slab/tools/clusterpolicy && \
		dir=$$(GOWORK=off $(GO) list -m -f '{{.Dir}}' sigs.k8s.io/network-policy-api) && \
		install -m 644 $$dir/conformance/base/manifests.yaml ../../../../$(@D) && install -m 644 \
		$$dir/config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml ../../../../$@
bin/k8s/test2json: dist/k8slab/tools/go.mod
	@echo building $@; CGO_ENABLED=0 $(RUN_GO) build -o $@ cmd/test2json
.PHONY: test-kube k8slab e2e-kubernetes e2e-install conformance-policy packages-kubernetes
test-kube: build tools bin/k8s/kube-apiserver ## test store and manifest with a real kube-apiserver; 5 minutes
	@SELVAGE_TEST_KUBE=1 $(RUN_GO) test -count=1 ./subnet/kube/... ./network/feed ./network/mesh/exchange
	@$(RUN_GO) test -count=1 -tags kube ./dist/kubernetes
	@cd dist/bench && SELVAGE_TEST_KUBE=1 $(RUN_GO) test -count=1 -run TestKube .
k8slab: # the suite, and the programs of its pods
	@echo building bin/k8s/k8slab; cd dist/k8slab && \
		$(STATIC) -ldflags '$(LDFLAGS)' -o ../../bin/k8s/ ./cmd/k8slab ./cmd/agent ./cmd/conformance
	@cd dist/containerd && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../bin/k8s/ ./cmd/pod
K8SLAB_STORES ?= kubernetes etcd
e2e-kubernetes: packages-kubernetes build tools bin/etcdutl image $(KUBERNETES) $(COREDNS) k8slab
e2e-kubernetes: ## test with a real Kubernetes, dual stack, both stores; as root; 15 minutes
	@set -e; for store in $(K8SLAB_STORES); do echo "store: $$store"; bin/k8s/k8slab --store $$store $(K8SLAB); done
# From the files of a release, and nothing else: the manifest, and the chart's archive. bin/release has one of each.
e2e-install: packages-kubernetes build tools bin/etcdutl $(KUBERNETES) $(COREDNS) k8slab release
e2e-install: ## install from a release's manifest and chart in a real Kubernetes, and remove it; as root; 6 minutes
	@cd dist/chart && $(RUN_GO) run ./cmd/template ../../bin/release/selvage-chart-*.tgz plain.yaml \
		>../../bin/release-build/chart.yaml
	@set -e; for manifest in bin/release/selvage.yaml bin/release-build/chart.yaml; do echo "manifest: $$manifest"; \
		bin/k8s/k8slab --install --manifest $$manifest --image bin/release/selvage-*.oci.tar; done
conformance-policy: packages-kubernetes build tools image $(KUBERNETES) $(SUITES) k8slab
conformance-policy: ## run other projects' suites for network policies; as root; hours; CONFORMANCE='--suites e2e'
	@bin/k8s/conformance $(CONFORMANCE)
packages-kubernetes:
	@sh dist/packages.sh iptables nft containerd runc
