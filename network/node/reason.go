package node

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// reasonOf returns the reason of an open problem of the journal.
func reasonOf(topic string, err error) status.Reason {
	switch topic {
	case topicConfig:
		switch {
		case errors.Is(err, errNoConfig):
			return status.ConfigMissing
		case errors.Is(err, errConfigDeleted):
			return status.ConfigDeleted
		}
		return status.ConfigRejected
	case topicUplink:
		return status.NoUplink
	case topicAdvice:
		return status.AdviceBad
	case topicAnnounce:
		return status.NotAnnounced
	case topicKernel:
		return status.KernelUnread
	case topicSetup:
		return status.StartFailed
	case topicKeyFile:
		return status.KeyFile
	}
	return status.FileNotWritten // subnet file, status file, MAC address, cached leases
}

// entryReason returns why a kernel entry cannot be made.
func entryReason(err error) status.Reason {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return status.Unsupported
	case errors.Is(err, unix.EPERM):
		return status.NotPermitted
	}
	return status.EntryFailed
}

// rejection returns why a lease is rejected.
func rejection(err error) status.Reason {
	switch {
	case errors.Is(err, subnet.ErrOverlap):
		return status.LeaseOverlaps
	case errors.Is(err, subnet.ErrDuplicate):
		return status.LeaseDuplicate
	case errors.Is(err, subnet.ErrOwnPublicIP):
		return status.LeaseOwnIP
	}
	return status.LeaseInvalid
}
