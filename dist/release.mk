# A release: packages, tarballs, the image, the chart, and what describes them. See dist/release/doc.go. All that
# depends on the environment or the directory of the build is set here, so that each build has the same bytes.
RELEASE_ARCH      ?= amd64 arm64
RELEASE_OUT       ?= $(CURDIR)/bin/release
COMMIT            ?= $(shell git rev-parse HEAD)
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
RELEASE_ENV = GOFLAGS=-buildvcs=false GOEXPERIMENT= GOOS=linux GOAMD64=v1 GOARM64=v8.0
RELEASE_BUILD = $(CURDIR)/bin/release-build

.PHONY: release release-binaries
release: release-binaries ## build packages, tarballs, image, chart, checksums, SBOMs and provenance into bin/release
	@cd dist/image && SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(RUN_GO) run ./cmd/image --version '$(VERSION)' \
		--name 'localhost/selvage:$(subst +,-,$(VERSION))' --out $(RELEASE_BUILD)/image \
		$(foreach arch,$(RELEASE_ARCH),--binaries $(arch)=$(RELEASE_BUILD)/$(arch))
	@cd dist/release && SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) $(RUN_GO) run ./cmd/release --version '$(VERSION)' \
		--commit '$(COMMIT)' --repository $(CURDIR) --build $(RELEASE_BUILD) --out $(RELEASE_OUT) \
		$(foreach arch,$(RELEASE_ARCH),--arch $(arch))
release-binaries:
	@set -e; export $(RELEASE_ENV); for arch in $(RELEASE_ARCH); do \
		out=$(RELEASE_BUILD)/$$arch; echo building $$out; export GOARCH=$$arch; \
		$(STATIC) -ldflags '$(LDFLAGS) -X main.version=$(VERSION)' -o $$out/selvaged .; \
		$(STATIC) -ldflags '$(LDFLAGS)' -o $$out/selvage ./cniplugin/selvage; \
		cd dist/tools; for plugin in main/bridge ipam/host-local main/loopback meta/portmap; do \
			$(STATIC) -ldflags '$(LDFLAGS)' -o $$out/cni/$${plugin#*/} $(CNI)/$$plugin; done; cd ../..; done

# Without a network, with a warm module cache. COLD=1 gives each build a build cache of its own: it compiles everything
# twice, which takes many minutes.
.PHONY: test-release
test-release: ## build a release twice, from two directories, and compare all files; 2 minutes; COLD=1
	@MAKE='$(MAKE)' VERSION='$(VERSION)' COMMIT='$(COMMIT)' SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' \
		RELEASE_ARCH='$(RELEASE_ARCH)' COLD='$(COLD)' sh dist/release/twice.sh
