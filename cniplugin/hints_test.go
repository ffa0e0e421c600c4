package cniplugin

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// TestHints: an error of the kernel that a delegate passes on comes with what it means; the delegate's code and text stay.
func TestHints(t *testing.T) {
	for number, want := range map[syscall.Errno]string{
		syscall.EPERM: "CAP_NET_ADMIN", syscall.EACCES: "security module", syscall.ERANGE: "at most 15 characters",
		syscall.EXFULL: "1023 ports", syscall.EEXIST: "already", syscall.ENODEV: "ip monitor link",
		syscall.EBUSY: "another bridge", syscall.EOPNOTSUPP: "modules", syscall.EAFNOSUPPORT: "ipv6.disable=1",
		syscall.ENETUNREACH: "ipam.routes", syscall.ENOSPC: "df -i", syscall.EROFS: "mounted read-only",
		syscall.EISDIR: "remove it", syscall.ENOTDIR: "remove it", syscall.EMFILE: "ulimit -n", syscall.ENOMEM: "out of memory",
		syscall.ENOBUFS: "gc_thresh3",
	} {
		for _, printed := range []string{`{"code":999,"msg":"failed to do x: ` + number.Error() + `"}`, "panic: " + number.Error()} {
			err := delegateError("bridge", "ADD", exitError{1 << 8}, []byte(printed), nil)
			for _, part := range []string{`delegate "bridge": ADD`, number.Error(), want} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %v, want %q", printed, err, part)
				}
			}
			if e, ok := errors.AsType[*types.Error](err); !ok || e.Code != 999 {
				t.Errorf("%s: %v, want code 999", printed, err)
			}
		}
	}
	plain := types.NewError(7, "the answer is 42", "")
	if err := withHint(plain, plain.Msg); err != error(plain) {
		t.Errorf("%v is no error of the kernel", err)
	}
	seen := ""
	for _, h := range hints() {
		if strings.Contains(seen, h.text) || h.text != strings.ToLower(h.text) {
			t.Errorf("%q is hidden by one before it", h.text)
		}
		seen += h.text + "\n"
	}
}
