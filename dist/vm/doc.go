// Package vm runs tests of this repository on a second kernel: Debian's own, in a virtual machine that qemu emulates in
// software, so that neither the machine's kernel nor its hardware has to support anything.
//
//	cmd/vm     on the machine: builds the tests, packs them with all they need, boots, judges
//	cmd/init   in the virtual machine: the first process; loads the kernel's modules and runs the tests
//	cases      tests for what a kernel of test machines may lack; they run nowhere else
//
// The virtual machine has no disk and no network. Its files are an initramfs: static test binaries, the programs in bin,
// some programs of the machine with their libraries, and kernel modules. The repository's files have the same relative
// paths as here, so that tests run as they are.
//
// The first process copies what tests print to a serial line, between lines of its own (see [Begin]). The machine counts
// the cases in it. A case that was expected and did not run, or that was skipped, has failed.
package vm
