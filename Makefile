# make          what there is to do
# Everything is built from Go modules at the versions that go.mod and dist/tools/go.mod pin. What is built goes to bin/.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w
RUN_GO   = GO='$(GO)' sh $(CURDIR)/dist/go.sh
# Without gRPC's tracing pages nothing needs html/template, whose use of reflection makes the linker keep all methods of all types.
STATIC   = CGO_ENABLED=0 $(RUN_GO) build -trimpath -tags grpcnotrace

# An ordinary user's PATH on Debian has no sbin, where iptables is.
export PATH := $(PATH):/usr/sbin:/sbin

# Packages that decide and do no I/O: more than 90 % of their statements must be covered.
PURE = subnet network backend backend/vxlan backend/hostgw cniplugin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The go command knows by itself what is up to date.
.PHONY: build selvaged selvage bin/lab
build: selvaged selvage ## build bin/selvaged (the daemon) and bin/selvage (the CNI plugin), static
selvaged:
	@echo building bin/selvaged; $(STATIC) -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o bin/selvaged .
selvage:
	@echo building bin/selvage; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/selvage ./cniplugin/selvage
bin/lab:
	@echo building $@; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/lab ./dist/lab/cmd/lab

PINS = dist/tools/go.mod dist/tools/go.sum
TOOL = @echo building $@; cd dist/tools && $(STATIC) -ldflags '$(LDFLAGS)'
CNI  = github.com/containernetworking/plugins/plugins

.PHONY: tools
tools: bin/etcd bin/etcdctl bin/cni/bridge bin/cni/host-local bin/cni/loopback bin/cni/portmap bin/cni/bandwidth ## build etcd and the reference CNI plugins
bin/etcd: $(PINS)
	$(TOOL) -o ../../$@ go.etcd.io/etcd/server/v3
bin/etcdctl: $(PINS)
	$(TOOL) -o ../../$@ go.etcd.io/etcd/etcdctl/v3
bin/cni/bridge bin/cni/loopback: bin/cni/%: $(PINS)
	$(TOOL) -o ../../$@ $(CNI)/main/$*
bin/cni/host-local: $(PINS)
	$(TOOL) -o ../../$@ $(CNI)/ipam/host-local
bin/cni/portmap bin/cni/bandwidth: bin/cni/%: $(PINS)
	$(TOOL) -o ../../$@ $(CNI)/meta/$*
bin/staticcheck: $(PINS)
	$(TOOL) -o ../../$@ honnef.co/go/tools/cmd/staticcheck
bin/cnitool: $(PINS)
	$(TOOL) -o ../../$@ github.com/containernetworking/cni/cnitool
bin/benchstat: $(PINS)
	$(TOOL) -o ../../$@ golang.org/x/perf/cmd/benchstat

# A module of its own, since promtool comes with most of Prometheus.
bin/promtool: dist/prometheus/go.mod dist/prometheus/go.sum
	@echo building $@; cd dist/prometheus && $(STATIC) -tags remove_all_sd -ldflags '$(LDFLAGS)' -o ../../$@ github.com/prometheus/prometheus/cmd/promtool
.PHONY: alerts
alerts: bin/promtool ## check the metrics, the alert rules and what they fire on
	@cd dist/prometheus && ../../bin/promtool check rules --lint=all --lint-fatal selvage.rules.yml && ../../bin/promtool test rules selvage.rules.test.yml && \
		../../bin/promtool check config prometheus.yml
	@bin/promtool check metrics <network/node/api/testdata/metrics.txt && echo the metrics are as they should be

.PHONY: demo
demo: packages-demo build tools bin/lab ## three nodes, six pods, all probes: see it work, in one command
	@bin/lab demo

.PHONY: lab
lab: packages-demo build tools bin/lab ## the same three nodes, kept up, with a prompt
	@bin/lab up

# The tests run in a sandbox: namespaces of their own, which end with it and with all that is in them, and a /tmp that
# vanishes. The modules are fetched before, since there is no network in it. Each process of a test under the race
# detector would sleep a second at its end; GORACE spares that.
.PHONY: test
test: packages-test build tools bin/cnitool bin/lab lint ## all tests, with the race detector
	@$(RUN_GO) mod download
	@GORACE=atexit_sleep_ms=0 bin/lab sandbox -- sh -c '{ $(GO) test -race -count=1 -timeout 15m -coverprofile=/tmp/cover.out ./... 2>&1; echo $$? >/tmp/status; } | tee /tmp/out; \
		$(GO) tool cover -func=/tmp/cover.out | tail -n 1; \
		sh dist/coverage.sh 90 $(PURE) </tmp/out && exit $$(cat /tmp/status)'

.PHONY: bin/chaos chaos bin/chaos-store chaos-store
bin/chaos:
	@echo building $@; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/chaos ./dist/chaos/cmd/chaos
chaos: packages-demo build tools bin/chaos ## break a running overlay in every way we know, and time until it is whole; 20 minutes
	@bin/chaos
bin/chaos-store:
	@echo building $@; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/chaos-store ./dist/chaosstore/cmd/chaos-store
chaos-store: packages-demo build tools bin/chaos-store ## break etcd under a running overlay in every way we know; 5 minutes
	@bin/chaos-store

# A module of its own, since what draws the picture is large. It measures the binaries that make build builds.
.PHONY: bin/bench bench soak packages-bench
bin/bench:
	@echo building $@; cd dist/bench && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../$@ ./cmd/bench
bench: packages-bench build tools bin/bench bin/benchstat ## what it costs, beside iproute2, with what is to be reached; 12 minutes; BENCH='--only start'
	@bin/bench --json bin/bench.json --text bin/bench.txt --picture bin/bench.svg $(BENCH)
soak: packages-bench build tools bin/bench ## leases, pods and faults come and go a hundred times faster than in life: does anything grow; 10 minutes; SOAK='--soak 1m'
	@bin/bench --only soak --judge --json bin/soak.json --text bin/soak.txt $(SOAK)
packages-bench:
	@sh dist/packages.sh iptables ip bridge tc iperf3

.PHONY: matrix
matrix: packages-demo build tools bin/lab ## all probes in every combination of families, backends and filters
	@bin/lab matrix

# What is for Kubernetes, Docker and containerd: modules of their own, which make test does not need.
IMAGE      ?= localhost/selvage:devel
IMAGE_ARCH ?= $(shell $(GO) env GOARCH)

.PHONY: image
image: ## build the container image into bin/image, as archives; IMAGE is its name, IMAGE_ARCH for which ("amd64 arm64")
	@set -e; for arch in $(IMAGE_ARCH); do echo building bin/image/$$arch; export GOARCH=$$arch; \
		$(STATIC) -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o bin/image/$$arch/selvaged .; \
		$(STATIC) -ldflags '$(LDFLAGS)' -o bin/image/$$arch/selvage ./cniplugin/selvage; done
	@cd dist/image && $(RUN_GO) run ./cmd/image --name '$(IMAGE)' --version '$(VERSION)' --out ../../bin/image \
		$(foreach arch,$(IMAGE_ARCH),--binaries $(arch)=../../bin/image/$(arch))

.PHONY: test-packaging
test-packaging: packages-test packages-shells packages-bench build tools bin/staticcheck ## tests of the image, the chart, the manifest, the benchmarks, of what runs them, and of shell completion
	@set -e; for dir in bench completion image chart containerd crio engines k8slab migration; do (cd dist/$$dir; $(RUN_GO) vet ./...; ../../bin/staticcheck ./...); done
	@set -e; for dir in bench completion image chart k8slab; do (cd dist/$$dir; $(RUN_GO) test -race -count=1 ./...); done
packages-shells:
	@sh dist/packages.sh /usr/share/bash-completion/bash_completion zsh fish

# flanneld's userspace backend, which nobody uses here, is written in C in part.
bin/flanneld: dist/migration/flannel/go.mod dist/migration/flannel/go.sum
	@echo building $@; cd dist/migration/flannel && version=$$(GOWORK=off $(GO) list -m -f '{{.Version}}' github.com/flannel-io/flannel) && \
		GOWORK=off CGO_ENABLED=1 $(RUN_GO) build -trimpath -ldflags "$(LDFLAGS) -X github.com/flannel-io/flannel/pkg/version.Version=$$version" -o ../../../$@ github.com/flannel-io/flannel
.PHONY: e2e-migration packages-shells
e2e-migration: packages-migration build tools bin/flanneld ## from a real flannel to selvage, node by node while pods talk, and back; two minutes
	@cd dist/migration && $(RUN_GO) test -count=1 -timeout 5m -v .
packages-migration:
	@sh dist/packages.sh iptables nft gcc ip

CONTAINERD = bin/containerd/containerd bin/containerd/containerd-shim-runc-v2 bin/containerd/ctr
$(CONTAINERD): bin/containerd/%: dist/containerd/runtime/go.mod dist/containerd/runtime/go.sum
	@echo building $@; cd dist/containerd/runtime && GOWORK=off $(STATIC) -ldflags '$(LDFLAGS)' -o ../../../$@ github.com/containerd/containerd/v2/cmd/$*

# Debian's containerd first, which is of version 1.6, then one of version 2: they differ in what makes a node ready.
.PHONY: e2e-containerd
e2e-containerd: packages-containerd build tools $(CONTAINERD) ## pods under a real containerd, the DaemonSet, the unit under systemd; as root
	@cd dist/containerd && $(RUN_GO) test -count=1 -timeout 5m .
	@cd dist/containerd && $(RUN_GO) test -count=1 -timeout 5m -run 'TestContainerd|TestDaemonSet' . -args -dir $(CURDIR)/bin/containerd

# CRI-O is not in Debian. What it wants of C libraries is left out: gpgme, btrfs, ostree, libseccomp.
CRIO = bin/crio/crio bin/crio/pinns
bin/crio/crio: dist/crio/runtime/go.mod dist/crio/runtime/go.sum
	@echo building $@; cd dist/crio/runtime && GOWORK=off $(STATIC) -tags 'containers_image_openpgp containers_image_ostree_stub exclude_graphdriver_btrfs' \
		-ldflags '$(LDFLAGS)' -o ../../../$@ github.com/cri-o/cri-o/cmd/crio
bin/crio/pinns: dist/crio/runtime/go.mod dist/crio/runtime/go.sum
	@echo building $@; mkdir -p bin/crio; cd dist/crio/runtime && export GOWORK=off && $(GO) mod download github.com/cri-o/cri-o && \
		gcc -std=c99 -Os -static -o ../../../$@ "$$($(GO) list -m -f '{{.Dir}}' github.com/cri-o/cri-o)"/pinns/src/*.c
.PHONY: e2e-crio
e2e-crio: packages-crio build tools $(CRIO) ## pods under a real CRI-O, the DaemonSet; as root
	@cd dist/crio && $(RUN_GO) test -count=1 -timeout 5m .

# The Docker that the machine has, or Debian's, then one of version 29, which drops more. Its runc is linked with C.
DOCKER = bin/docker/dockerd bin/docker/docker-proxy bin/docker/runc
bin/docker/dockerd bin/docker/docker-proxy: bin/docker/%: dist/engines/runtime/go.mod dist/engines/runtime/go.sum
	@echo building $@; cd dist/engines/runtime && GOWORK=off $(STATIC) -ldflags '$(LDFLAGS)' -o ../../../$@ github.com/moby/moby/v2/cmd/$*
bin/docker/runc: dist/engines/runtime/go.mod dist/engines/runtime/go.sum
	@echo building $@; cd dist/engines/runtime && GOWORK=off CGO_ENABLED=1 $(RUN_GO) build -trimpath -ldflags '$(LDFLAGS)' -o ../../../$@ github.com/opencontainers/runc
.PHONY: e2e-docker
e2e-docker: packages-docker build tools $(DOCKER) ## a real Docker with our drop-in, under systemd, four minutes; as root
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 10m -run TestDocker .
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 5m -run 'TestDocker$$|TestDockerWaits' . -args -docker $(CURDIR)/bin/docker

# What stands for the image debian:12-slim: there is no registry.
bin/debian.tar:
	@echo building $@; mkdir -p bin; root=$$(mktemp -d) && trap 'rm -rf "$$root"' EXIT && \
		debootstrap --variant=minbase bookworm "$$root" >bin/debootstrap.log && tar -C "$$root" -cf $@ .
.PHONY: e2e-podman
e2e-podman: packages-podman build tools bin/debian.tar ## a real Podman, with CNI and with Netavark, and the Dockerfile, two minutes; as root
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 10m -run 'TestPodman|TestNetavark' .
	@cd dist/engines && $(RUN_GO) test -count=1 -timeout 5m ./dockerfile

# A Kubernetes of its own module, which nothing else has to agree with. The first build of it takes some minutes.
KUBERNETES = $(addprefix bin/k8s/,kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)
$(KUBERNETES): bin/k8s/%: dist/k8slab/tools/go.mod dist/k8slab/tools/go.sum
	@echo building $@; cd dist/k8slab/tools && version=$$(GOWORK=off $(GO) list -m -f '{{.Version}}' k8s.io/kubernetes) && \
		GOWORK=off CGO_ENABLED=0 $(RUN_GO) build -o ../../../$@ -ldflags "$(LDFLAGS) -X k8s.io/component-base/version.gitVersion=$$version" k8s.io/kubernetes/cmd/$*
.PHONY: k8slab e2e-kubernetes
k8slab: # the suite, and what runs in its pods
	@echo building bin/k8s/k8slab; cd dist/k8slab && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../bin/k8s/ ./cmd/k8slab ./cmd/agent
	@cd dist/containerd && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../bin/k8s/ ./cmd/pod
e2e-kubernetes: packages-kubernetes build tools image $(KUBERNETES) k8slab ## a real Kubernetes with selvage as its network, in dual stack, three minutes; as root
	@bin/k8s/k8slab $(K8SLAB)

.PHONY: packages-docker packages-podman
packages-docker:
	@sh dist/packages.sh iptables dockerd containerd runc gcc systemd-analyze ip
packages-podman:
	@sh dist/packages.sh iptables podman crun conmon /usr/lib/podman/netavark debootstrap systemd-analyze ip

.PHONY: packages-containerd packages-crio packages-kubernetes
packages-kubernetes:
	@sh dist/packages.sh iptables nft containerd runc
packages-containerd:
	@sh dist/packages.sh iptables containerd runc systemd-analyze
packages-crio:
	@sh dist/packages.sh iptables nft conmon runc skopeo gcc

.PHONY: lint
lint: bin/staticcheck ## gofmt, go vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go'))" || { gofmt -l $$(git ls-files -co --exclude-standard '*.go'); echo 'not formatted: run gofmt -w on these' >&2; exit 1; }
	@$(RUN_GO) vet ./...
	bin/staticcheck ./...

.PHONY: packages-demo packages-test
packages-demo:
	@sh dist/packages.sh iptables
packages-test:
	@sh dist/packages.sh iptables gcc git systemd-analyze ip ping

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
