// Package cases is tests for the virtual machine of dist/vm: of what needs a kernel with WireGuard, SCTP, netem, VRF and
// bonding, which the kernel of a test machine may lack. They are run by make e2e-vm, and not meant to be run elsewhere.
package cases
