package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helper names the environment variable that makes the test binary run one of helpers instead of the tests.
const helper = "SANDBOX_TEST_HELPER"

func TestMain(m *testing.M) {
	run, options := m.Run, Options{}
	if name := os.Getenv(helper); name != "" {
		run = helpers()[name]
		options.Tmp = name == "tmp"
		if name == "files" {
			options.Outside = outsideHelper
		}
	}
	os.Exit(options.Run(run))
}

// helpers are what a nested sandbox runs.
func helpers() map[string]func() int {
	return map[string]func() int{
		"code": func() int { return 7 },
		"whoami": func() int {
			_, err := NewHost("nested")
			fmt.Println(os.Getuid(), os.Getppid(), err)
			return 0
		},
		"wait": func() int { // with a child that nobody waits for, as a daemon would be
			child := exec.Command("sleep", "1000")
			child.Env = os.Environ()
			child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := child.Start(); err != nil {
				fmt.Println(err)
			}
			fmt.Println("ready")
			select {}
		},
		"orphan": func() int {
			// The shell leaves a process behind that ends at once; init has to reap it.
			if err := exec.Command("sh", "-c", "true & exit 0").Run(); err != nil {
				fmt.Println(err)
			}
			for {
				if n, err := childrenOf(1); err != nil || n == 1 { // this process alone
					fmt.Println(n, err)
					return 0
				}
			}
		},
		"tmp": func() int {
			entries, err := os.ReadDir("/tmp")
			fmt.Println(len(slices.DeleteFunc(entries, func(e os.DirEntry) bool {
				return slices.Contains(keep("/tmp", needed()), e.Name())
			})), os.TempDir(), err)
			return 0
		},
		"files": func() int {
			_, err := os.NewFile(3, "inherited").WriteString("hello from inside")
			fmt.Println(err)
			return 0
		},
	}
}

func outsideHelper() ([]*os.File, func(), error) {
	path := os.Getenv("SANDBOX_TEST_FILE")
	f, err := os.Create(path)
	return []*os.File{f}, func() { os.Rename(path, path+".done") }, err
}

func childrenOf(pid int) (int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	n := 0
	for _, path := range stats {
		if b, err := os.ReadFile(path); err == nil {
			_, after, _ := strings.Cut(string(b), ") ")
			if strings.Fields(after)[1] == strconv.Itoa(pid) {
				n++
			}
		}
	}
	return n, err
}

// nested returns a command that runs a helper in a sandbox inside the one that the test is in.
func nested(t *testing.T, name string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	// The race detector sleeps a second at exit, in each of the three processes.
	cmd.Env = append(os.Environ(), helper+"="+name, "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// eventually waits until ok holds; the deadline is the test binary's.
func eventually(ok func() bool) {
	for !ok() {
		time.Sleep(5 * time.Millisecond)
	}
}

func TestInside(t *testing.T) {
	if uid, parent := os.Getuid(), os.Getppid(); uid != 0 || parent != 1 {
		t.Errorf("user %d, parent %d, want 0 and 1", uid, parent)
	}
	if v, ok := os.LookupEnv(marker); ok {
		t.Errorf("%s=%s is left in the environment", marker, v)
	}
	if self, err := os.Readlink("/proc/self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		t.Errorf("/proc/self is %s, %v, want %d", self, err, os.Getpid())
	}
	for _, dir := range []string{"/run/selvage/test", "/var/lib/selvage/test"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Error(err)
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil || len(interfaces) != 1 || interfaces[0].Flags&net.FlagUp == 0 {
		t.Errorf("interfaces %+v, %v, want lo alone, and up", interfaces, err)
	}
	if err := exec.Command("false").Run(); err == nil || err.Error() != "exit status 1" {
		t.Errorf("a child's exit code is lost: %v", err)
	}
}

func TestNested(t *testing.T) {
	for name, test := range map[string]struct {
		code int
		out  string
	}{
		"code":   {7, ""},
		"whoami": {0, "0 1 <nil>\n"},
		"orphan": {0, "1 <nil>\n"},
		"tmp":    {0, "0 /tmp <nil>\n"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, out := nested(t, name)
			cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != test.code || out.String() != test.out {
				t.Errorf("exit code %d, output %q, want %d, %q", code, out, test.code, test.out)
			}
		})
	}
}

// TestUnprivileged gives up CAP_SYS_ADMIN first, so that a user namespace has to be made.
func TestUnprivileged(t *testing.T) {
	cmd, out := nested(t, "whoami")
	err := onThread(func() error {
		// Exec gives user 0 every capability that is in the bounding set.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
			return err
		}
		return cmd.Run()
	})
	if err != nil || out.String() != "0 1 <nil>\n" {
		t.Errorf("output %q, %v", out, err)
	}
}

func TestOutside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	cmd, out := nested(t, "files")
	cmd.Env = append(cmd.Env, "SANDBOX_TEST_FILE="+path)
	if err := cmd.Run(); err != nil || out.String() != "<nil>\n" {
		t.Errorf("output %q, %v", out, err)
	}
	if b, err := os.ReadFile(path + ".done"); string(b) != "hello from inside" {
		t.Errorf("file holds %q, %v", b, err)
	}
}

// TestEnd ends a sandbox in every way from outside, and looks for what is left of it.
func TestEnd(t *testing.T) {
	for _, test := range []struct {
		signal syscall.Signal
		code   int
	}{
		{unix.SIGTERM, 128 + 15}, {unix.SIGHUP, 128 + 1}, {unix.SIGQUIT, 2}, {unix.SIGKILL, -1},
	} {
		t.Run(test.signal.String(), func(t *testing.T) {
			mark := fmt.Sprintf("SANDBOX_TEST_MARK=%d.%d", os.Getpid(), test.signal)
			cmd, _ := nested(t, "wait")
			cmd.Env = append(cmd.Env, mark)
			cmd.Stdout, cmd.Stderr = nil, nil // a descriptor of ours that a survivor holds would make Wait wait for it
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 1)); err != nil { // "ready"
				t.Fatal(err)
			}
			if n := marked(mark); n != 4 { // outside, init, inside, sleep
				t.Errorf("%d processes at first, want 4", n)
			}
			cmd.Process.Signal(test.signal)
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			eventually(func() bool { return marked(mark) == 0 })
		})
	}
}

// marked counts the processes that have mark in their environment.
func marked(mark string) int {
	n := 0
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		if b, err := os.ReadFile(path); err == nil && slices.Contains(strings.Split(string(b), "\x00"), mark) {
			n++
		}
	}
	return n
}

func TestCommand(t *testing.T) {
	if code := Command([]string{"no-such-program"})(); code != 127 {
		t.Errorf("code %d, want 127", code)
	}
}

func TestKeep(t *testing.T) {
	paths := []string{"", "/tmp", "/tmp/src/selvage/", "/tmp/src/other", "/tmp/go", "/tmpfs/x", "relative", "/home/me"}
	if got, want := keep("/tmp", paths), []string{"src", "go"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		err     error
		sysctls map[string]string
		want    string
	}{
		{unix.ENOSPC, nil, "user.max_user_namespaces=10000"},
		{unix.EPERM, map[string]string{"user/max_user_namespaces": "0"}, "user.max_user_namespaces=10000"},
		{unix.EPERM, map[string]string{"kernel/unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone=1"},
		{unix.EPERM, map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1"}, "AppArmor"},
		{unix.EPERM, map[string]string{"user/max_user_namespaces": "9"}, "--privileged"},
		{unix.EINVAL, nil, "kernel is built without"},
		{unix.ENOMEM, nil, "make namespaces"},
	} {
		err := explain(test.err, func(path string) string { return test.sysctls[strings.TrimPrefix(path, "/proc/sys/")] })
		if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, %v: got %q, want %q in it", test.err, test.sysctls, err, test.want)
		}
	}
}
