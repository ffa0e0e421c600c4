package kernel

import "github.com/selvage-net/selvage/network"

// deviceKind is what is particular to one kind of device. A new kind is one file with its deviceKind, and one line in
// [kindNamed].
type deviceKind interface {
	// create makes a device with the settings, MTU and MAC address of want; it is down. The error says what the kernel
	// lacks, if that is the cause.
	create(k *Kernel, name string, want network.Link) error
	// change gives a live device the settings want, of which it has have; the two are the same device, see
	// [network.LinkSettings]. flushed reports whether that deleted the device's FDB entries, even if there is an error.
	change(k *Kernel, name string, index int, have, want network.LinkSettings) (flushed bool, err error)
	// decode reads the settings from a device's IFLA_INFO_DATA, which is valid only during the call.
	decode(data []byte) network.LinkSettings
	// excludes reports whether the kernel refuses to make a device with the settings want as long as there is one with
	// that IFLA_INFO_DATA.
	excludes(data []byte, want network.LinkSettings) bool
}

// kindNamed returns the kind of device with a name (IFLA_INFO_KIND), or nil if selvage does not make such devices.
func kindNamed(name string) deviceKind {
	switch name {
	case network.KindVXLAN:
		return vxlan{}
	case network.KindWireGuard:
		return wireGuardDevice{}
	}
	return nil
}
