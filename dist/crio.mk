# CRI-O is not in Debian. It is built without its C libraries: gpgme, btrfs, ostree, libseccomp.
CRIO = bin/crio/crio bin/crio/pinns
bin/crio/crio: dist/crio/runtime/go.mod dist/crio/runtime/go.sum
	@echo building $@; cd dist/crio/runtime && \
		GOWORK=off $(STATIC) -tags 'containers_image_openpgp containers_image_ostree_stub exclude_graphdriver_btrfs' \
		-ldflags '$(LDFLAGS)' -o ../../../$@ github.com/cri-o/cri-o/cmd/crio
bin/crio/pinns: dist/crio/runtime/go.mod dist/crio/runtime/go.sum
	@echo building $@; mkdir -p bin/crio; cd dist/crio/runtime && export GOWORK=off && \
		$(GO) mod download github.com/cri-o/cri-o && \
		gcc -std=c99 -Os -static -o ../../../$@ "$$($(GO) list -m -f '{{.Dir}}' github.com/cri-o/cri-o)"/pinns/src/*.c
.PHONY: e2e-crio packages-crio
e2e-crio: packages-crio build tools $(CRIO) ## test with a real CRI-O and the DaemonSet; as root
	@cd dist/crio && $(RUN_GO) test -count=1 -timeout 30m .
packages-crio:
	@sh dist/packages.sh iptables nft conmon runc skopeo gcc
