# make          lists the targets
# Everything is built from Go modules, at the versions pinned in go.mod and dist/tools/go.mod, into bin/.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS  = -s -w
RUN_GO   = GO='$(GO)' sh $(CURDIR)/dist/go.sh
# grpcnotrace leaves out gRPC's tracing pages, and so html/template, whose reflection makes the linker keep every method
# of every type.
STATIC   = CGO_ENABLED=0 $(RUN_GO) build -trimpath -tags grpcnotrace

# An ordinary user's PATH on Debian has no sbin, where iptables is.
export PATH := $(PATH):/usr/sbin:/sbin

# Packages that decide and do no I/O: the tests must cover more than 90 % of their statements.
PURE = subnet network backend backend/vxlan backend/hostgw backend/wireguard cniplugin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Phony, since the go command itself knows what is up to date.
.PHONY: build selvaged selvage bin/lab bin/wireguard
build: selvaged selvage ## build bin/selvaged (the daemon) and bin/selvage (the CNI plugin), static
selvaged:
	@echo building bin/selvaged; $(STATIC) -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o bin/selvaged .
selvage:
	@echo building bin/selvage; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/selvage ./cniplugin/selvage
bin/lab:
	@echo building $@; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/lab ./dist/lab/cmd/lab
# Serves a WireGuard device in user space. A separate module: see test-wireguard.
bin/wireguard:
	@echo building $@; cd dist/wireguard && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../$@ .

PINS = dist/tools/go.mod dist/tools/go.sum
TOOL = @echo building $@; cd dist/tools && $(STATIC) -ldflags '$(LDFLAGS)'
CNI  = github.com/containernetworking/plugins/plugins

.PHONY: tools
CNI_PLUGINS = $(addprefix bin/cni/,bridge ptp host-local loopback portmap bandwidth)
tools: bin/etcd bin/etcdctl $(CNI_PLUGINS) ## build etcd and the reference CNI plugins
bin/etcd: $(PINS)
	$(TOOL) -o ../../$@ go.etcd.io/etcd/server/v3
bin/etcdctl: $(PINS)
	$(TOOL) -o ../../$@ go.etcd.io/etcd/etcdctl/v3
bin/cni/bridge bin/cni/ptp bin/cni/loopback: bin/cni/%: $(PINS)
	$(TOOL) -o ../../$@ $(CNI)/main/$*
bin/cni/host-local: $(PINS)
	$(TOOL) -o ../../$@ $(CNI)/ipam/host-local
bin/cni/portmap bin/cni/bandwidth: bin/cni/%: $(PINS)
	$(TOOL) -o ../../$@ $(CNI)/meta/$*
bin/etcdutl: $(PINS)
	$(TOOL) -o ../../$@ go.etcd.io/etcd/etcdutl/v3
bin/staticcheck: $(PINS)
	$(TOOL) -o ../../$@ honnef.co/go/tools/cmd/staticcheck
bin/misspell: $(PINS)
	$(TOOL) -o ../../$@ github.com/golangci/misspell/cmd/misspell
bin/cnitool: $(PINS)
	$(TOOL) -o ../../$@ github.com/containernetworking/cni/cnitool
bin/benchstat: $(PINS)
	$(TOOL) -o ../../$@ golang.org/x/perf/cmd/benchstat

# A separate module, since promtool depends on most of Prometheus.
bin/promtool: dist/prometheus/go.mod dist/prometheus/go.sum
	@echo building $@; cd dist/prometheus && \
		$(STATIC) -tags remove_all_sd -ldflags '$(LDFLAGS)' -o ../../$@ github.com/prometheus/prometheus/cmd/promtool
.PHONY: alerts
alerts: bin/promtool ## check the metrics, the alert rules and the dashboard, and test when the alerts fire
	@cd dist/prometheus && ../../bin/promtool check rules --lint=all --lint-fatal selvage.rules.yml && \
		../../bin/promtool test rules selvage.rules.test.yml && \
		../../bin/promtool check config prometheus.yml
	@bin/promtool check metrics <network/node/api/testdata/metrics.txt && echo the metrics are valid
	@cd dist/prometheus && CGO_ENABLED=0 $(RUN_GO) test -count=1 .

.PHONY: demo
demo: build tools bin/lab ## run three nodes and six pods, probe all paths, break it and time the repairs
	@bin/lab demo

.PHONY: lab
lab: build tools bin/lab ## run the same three nodes with a prompt
	@bin/lab up

# The tests run in a sandbox: new namespaces and a new /tmp, which end with it and with everything in them. It has no
# network, so the modules are downloaded first. GORACE spares the second that each process under the race detector
# sleeps at its end. Two packages run for each CPU, since a third of the time a test waits for other processes.
.PHONY: test
test: packages-test build tools bin/cnitool bin/lab bin/wireguard lint ## run all tests with the race detector
	@$(RUN_GO) mod download
	@GORACE=atexit_sleep_ms=0 bin/lab sandbox -- sh -c '{ \
			$(GO) test -race -count=1 -timeout 60m -p $$((2 * $$(nproc))) \
				-coverprofile=/tmp/cover.out ./... 2>&1; echo $$? >/tmp/status; \
		} | tee /tmp/out; \
		$(GO) tool cover -func=/tmp/cover.out | tail -n 1; \
		sh dist/coverage.sh 90 $(PURE) </tmp/out && exit $$(cat /tmp/status)'

.PHONY: bin/chaos chaos bin/chaos-store chaos-store
bin/chaos:
	@echo building $@; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/chaos ./dist/chaos/cmd/chaos
chaos: packages-iptables build tools bin/chaos bin/wireguard ## inject faults into an overlay and time the repairs; 20 minutes
	@bin/chaos $(CHAOS)
bin/chaos-store:
	@echo building $@; $(STATIC) -ldflags '$(LDFLAGS)' -o bin/chaos-store ./dist/chaosstore/cmd/chaos-store
chaos-store: packages-iptables build tools bin/chaos-store ## inject faults into etcd below a running overlay; 5 minutes
	@bin/chaos-store $(CHAOS)

# A separate module, since the plotting library is large. It measures the binaries of make build.
.PHONY: bin/bench bench soak packages-bench
bin/bench:
	@echo building $@; cd dist/bench && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../$@ ./cmd/bench
bench: packages-bench build tools bin/bench bin/benchstat
bench: ## measure against iproute2 and the targets; 12 minutes; BENCH='--only start'
	@bin/bench --json bin/bench.json --text bin/bench.txt --picture bin/bench.svg $(BENCH)
.PHONY: bench-kube
bench-kube: override BENCH := --only kube $(BENCH)
bench-kube: bin/k8s/kube-apiserver bin/flanneld bench ## measure the Kubernetes store among 5,000 Nodes; 10 minutes
soak: packages-bench build tools bin/bench ## look for leaks under fast churn and faults; 10 minutes; SOAK='--soak 1m'
	@bin/bench --only soak --judge --json bin/soak.json --text bin/soak.txt $(SOAK)
packages-bench:
	@sh dist/packages.sh iptables ipset ip bridge tc iperf3

.PHONY: integrity
integrity: packages-bench build tools bin/bench ## compare 100 GB that take the fast path byte by byte, as root; 15 minutes
	@bin/bench --only integrity --judge --json bin/integrity.json $(INTEGRITY)

.PHONY: matrix
matrix: packages-iptables build tools bin/lab bin/wireguard ## run all probes in every combination of families, backends, filters and stores
	@bin/lab matrix $(MATRIX)

IMAGE      ?= localhost/selvage:devel
IMAGE_ARCH ?= $(shell $(GO) env GOARCH)

.PHONY: image
image: ## build archives of the container image IMAGE into bin/image, for IMAGE_ARCH ("amd64 arm64")
	@set -e; for arch in $(IMAGE_ARCH); do out=bin/image/$$arch; echo building $$out; export GOARCH=$$arch; \
		$(STATIC) -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o $$out/selvaged .; \
		$(STATIC) -ldflags '$(LDFLAGS)' -o $$out/selvage ./cniplugin/selvage; \
		cd dist/tools; for plugin in main/bridge ipam/host-local main/loopback meta/portmap; do \
			$(STATIC) -ldflags '$(LDFLAGS)' -o ../../$$out/cni/$${plugin#*/} $(CNI)/$$plugin; done; cd ../..; done
	@cd dist/image && $(RUN_GO) run ./cmd/image --name '$(IMAGE)' --version '$(VERSION)' --out ../../bin/image \
		$(foreach arch,$(IMAGE_ARCH),--binaries $(arch)=../../bin/image/$(arch))

.PHONY: test-packaging packages-shells
test-packaging: packages-test packages-shells packages-bench packages-page build tools bin/staticcheck
test-packaging: ## test and lint all other modules of dist
	@set -e; for dir in bench completion image chart containerd crio engines k8slab k8slab/sctp migration page release vm; do \
		(cd dist/$$dir; $(RUN_GO) vet ./...; $(CURDIR)/bin/staticcheck ./...); done
	@set -e; for dir in completion image chart k8slab k8slab/sctp; do \
		(cd dist/$$dir; $(RUN_GO) test -race -count=1 ./...); done
	@cd dist/vm && $(RUN_GO) test -race -count=1 . # the rest runs in the virtual machine
	@set -e; for dir in bench page release; do (cd dist/$$dir; $(RUN_GO) test -count=1 ./...); done
packages-shells:
	@sh dist/packages.sh /usr/share/bash-completion/bash_completion zsh fish rpm

# A separate module, since the user-space WireGuard depends on a network stack. Kernels of test machines may lack WireGuard.
# Without the race detector: the test binary is the WireGuard in user space, too, which then keeps up with nothing on a
# busy machine. The daemon is a process of its own.
.PHONY: test-wireguard
test-wireguard: build tools bin/staticcheck ## run nodes with WireGuard in user space: pods reach each other, and faults are repaired
	@cd dist/wireguard && $(RUN_GO) vet ./... && ../../bin/staticcheck ./... && $(RUN_GO) test -count=1 -timeout 30m ./...

# A separate module, since the product does not depend on what drives a browser.
.PHONY: test-page packages-page
test-page: packages-page build tools bin/staticcheck ## open the web page of selvaged mesh in Chromium, and break a lab below it; 1 minute
	@cd dist/page && $(RUN_GO) vet ./... && ../../bin/staticcheck ./... && $(RUN_GO) test -count=1 ./...
packages-page:
	@sh dist/packages.sh chromium nft

# Not a part of test-packaging, since the other engines depend on much of Kubernetes.
.PHONY: second-reading
second-reading: bin/staticcheck ## compare verdicts on network policies with two other engines; first build 5 to 8 minutes
	@cd dist/secondreading && $(RUN_GO) vet ./... && ../../bin/staticcheck ./... && $(RUN_GO) test -count=1 -v ./...

.PHONY: lint
lint: bin/staticcheck language ## run gofmt, go vet, staticcheck, the language checks and that of the eBPF programs
	@bad=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$bad" || { \
		echo "$$bad"; echo 'not formatted: run gofmt -w on these' >&2; exit 1; }
	@$(RUN_GO) vet ./...
	bin/staticcheck ./...
	@$(BPF) check

BPF = GO='$(GO)' sh dist/bpf.sh
.PHONY: bpf
bpf: ## compile the eBPF programs of network/fastpath, whose output is committed; needs clang
	@$(BPF) build

.PHONY: language
language: bin/misspell ## check spelling, wording and line width of product code and documentation
	@bin/misspell -error $$(git ls-files '*.go' '*.md' '*.mk' '*.sh' Makefile)
	@$(RUN_GO) run ./dist/language

.PHONY: packages-iptables packages-test
packages-iptables:
	@sh dist/packages.sh iptables
packages-test:
	@sh dist/packages.sh iptables gcc git systemd-analyze ip ping
	@[ "$$(id -u)" != 0 ] || sh dist/packages.sh clang llvm-strip # else lint compiles no eBPF programs, and says so

.PHONY: clean
clean: ## remove bin/
	rm -rf bin

# Flannel and the container runtimes of the end-to-end tests, one file each.
include dist/*.mk
