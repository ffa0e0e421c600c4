# Tests on a second kernel: Debian's own, of the package that linux-image-cloud-amd64 depends on, under qemu.
VM_PACKAGE = linux-image-cloud-amd64
bin/vm/kernel:
	@echo fetching Debian\'s kernel into $@; mkdir -p bin/vm && sh dist/vm/kernel.sh $(VM_PACKAGE) $@
.PHONY: e2e-vm packages-vm
e2e-vm: packages-vm build tools bin/flanneld bin/staticcheck bin/vm/kernel
e2e-vm: ## run tests on Debian's kernel in a virtual machine, emulated: WireGuard, SCTP, netem, VRF; VM='--short'
	@cd dist/vm && $(RUN_GO) vet ./... && ../../bin/staticcheck ./... && $(RUN_GO) test -count=1 .
	@echo building bin/vm/vm; cd dist/vm && $(STATIC) -ldflags '$(LDFLAGS)' -o ../../bin/vm/ ./cmd/vm ./cmd/init
	@GO='$(GO)' bin/vm/vm $(VM)
packages-vm:
	@sh dist/packages.sh iptables nft ip tc wg qemu-system-x86_64
