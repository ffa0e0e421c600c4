package cniplugin

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// attachment is what ADD makes and DEL ends: one interface of one container on one network. A container can have
// several, also on one network.
type attachment struct{ network, containerID, ifName string }

// check applies the CNI spec's rules for names, as libcni's package utils has them. They keep "/" and ":" out, on which
// the names of files rely.
func (a attachment) check() error {
	if err := checkNetwork(a.network); err != nil {
		return err
	}
	if !isName(a.containerID) {
		return fail(types.ErrInvalidEnvironmentVariables, "CNI_CONTAINERID is no container ID", wantName(a.containerID))
	}
	return checkInterface(a.ifName)
}

func checkNetwork(name string) error {
	if name == "" {
		return fail(types.ErrInvalidNetworkConfig, "the network configuration has no name",
			errors.New(`want a key "name"`))
	}
	if !isName(name) {
		return fail(types.ErrInvalidNetworkConfig, "the network configuration's name is no network name",
			wantName(name))
	}
	return nil
}

// checkInterface applies the kernel's rules (dev_valid_name).
func checkInterface(name string) error {
	const longest = 15
	if name == "" || len(name) > longest || name == "." || name == ".." ||
		strings.ContainsAny(name, "/: \t\n\v\f\r\x00") {
		return fail(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME is no interface name",
			fmt.Errorf(`%q, want at most %d characters without "/", ":" or white space`, name, longest))
	}
	return nil
}

// checkBridge returns an error if the kernel would refuse the name of the bridge that a delegate is to make.
func checkBridge(d delegation) error {
	config, ok := d.bridge()
	if !ok {
		return nil
	}
	if err := checkInterface(config.Bridge); err != nil {
		return fail(types.ErrInvalidNetworkConfig, "delegate.bridge is no interface name",
			fmt.Errorf(`%q, want at most 15 characters without "/", ":" or white space`, config.Bridge))
	}
	return nil
}

// isName reports whether a name is letters, digits, "_", "." and "-", and starts with a letter or a digit.
func isName(name string) bool {
	for i, c := range []byte(name) {
		alphanumeric := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alphanumeric && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return name != ""
}

func wantName(name string) error {
	return fmt.Errorf(`%q, want letters, digits, "_", "." and "-", first a letter or a digit`, name)
}
