package errno

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		op   Operation
		err  error
		want string
	}{
		{Device, unix.EPERM, "operation not permitted; this needs CAP_NET_ADMIN"},
		{Route, fmt.Errorf("add: %w", unix.ENETUNREACH), "add: network is unreachable; the gateway cannot be reached"},
		{Neighbour, unix.ENOBUFS, "gc_thresh3"},
		{RawSocket, unix.EPERM, "CAP_NET_RAW"},
		{Sysctl, &fs.PathError{Op: "open", Path: "/proc/sys/x", Err: unix.EROFS}, "make /proc/sys writable"},
		{File, &fs.PathError{Op: "open", Path: "/var/x", Err: unix.ENOSPC}, "the file system is full"},
	} {
		err := Explain(tt.op, tt.err)
		if !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%v: %v, want %q", tt.err, err, tt.want)
		}
		if again := Explain(File, fmt.Errorf("more: %w", err)); again.Error() != "more: "+err.Error() {
			t.Errorf("explained twice: %v", again)
		}
	}
	plain := errors.New("no error of the kernel")
	if Explain(File, nil) != nil || Explain(File, plain) != plain || Explain(Route, unix.EXDEV) != error(unix.EXDEV) {
		t.Error("what is not known has been changed")
	}
}

// TestWritten: two attempts to replace a file fail alike.
func TestWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "file")
	first, second := Written(path, renameio.WriteFile(path, nil, 0o600)), Written(path, renameio.WriteFile(path, nil, 0o600))
	if first == nil || first.Error() != second.Error() || !strings.HasPrefix(first.Error(), "write "+path+": no such file") {
		t.Errorf("%v, and %v", first, second)
	}
}

// TestTable: no row is hidden by one before it, and each says something.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range table() {
		if len(a.text) < 10 || len(a.of) == 0 || len(a.errnos) == 0 {
			t.Errorf("%+v", a)
		}
		for _, op := range a.of {
			for _, number := range a.errnos {
				key := fmt.Sprint(op, " ", unix.ErrnoName(number))
				if seen[key] {
					t.Errorf("%s is there twice", key)
				}
				seen[key] = true
			}
		}
	}
	for op := Device; op <= File; op++ {
		if !slices.ContainsFunc(table(), func(a advice) bool { return slices.Contains(a.of, op) }) {
			t.Errorf("operation %d is not in the table", op)
		}
	}
}

// TestRealErrors: what the kernel returns is what the table has.
func TestRealErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, inUse := net.Listen("tcp", l.Addr().String())
	_, foreign := net.Listen("tcp", "192.0.2.1:0")
	for _, tt := range []struct {
		op   Operation
		err  error
		want string
	}{
		{File, os.WriteFile(filepath.Join(file, "x"), nil, 0o600), "a part of the path is a file"},
		{File, os.WriteFile(dir, nil, 0o600), "a directory is there"},
		{File, os.WriteFile(filepath.Join(dir, strings.Repeat("x", 300)), nil, 0o600), "the path is too long"},
		{Sysctl, os.WriteFile("/proc/sys/net/ipv4/no_such_setting", []byte("1"), 0), "no such"},
		{ListenTCP, inUse, "another process listens there"},
		{ListenTCP, foreign, "no interface of this host has the address"},
	} {
		if err := Explain(tt.op, tt.err); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.err, err, tt.want)
		}
	}
}
