package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// explain says why the kernel refused namespaces, and what to do. read returns a sysctl's value, or "" if there is none.
func explain(err error, read func(path string) string) error {
	var advice string
	switch {
	case errors.Is(err, unix.ENOSPC) || read("/proc/sys/user/max_user_namespaces") == "0":
		advice = "no more user namespaces are allowed (sysctl user.max_user_namespaces); raise it: " +
			"sudo sysctl user.max_user_namespaces=10000"
	case read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		advice = "only root may make user namespaces here; allow it: sudo sysctl kernel.unprivileged_userns_clone=1"
	case read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		advice = "AppArmor restricts user namespaces here; allow them: " +
			"sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		advice = "a container's seccomp profile most likely forbids it; run it outside a container, " +
			"or in one started with --privileged"
	case errors.Is(err, unix.EINVAL):
		advice = "this kernel is built without one of the user, mount, pid, net, uts and ipc namespaces"
	default:
		return fmt.Errorf("make namespaces: %w", err)
	}
	return fmt.Errorf("make namespaces: %w: %s; or run it as root", err, advice)
}

func readLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
