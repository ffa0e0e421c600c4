package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// asLab is the environment variable that makes the test binary be the lab command.
const asLab = "LAB_TEST_IS_LAB"

func TestMain(m *testing.M) {
	if os.Getenv(asLab) != "" {
		main()
	}
	os.Exit(sandbox.Run(m.Run))
}

// labCommand is a lab command of a user with an empty runtime directory of his own, and a mark in its environment and that
// of all it starts.
type labCommand struct {
	t          *testing.T
	runtimeDir string
	mark       string
}

func newLabCommand(t *testing.T) labCommand {
	return labCommand{t, t.TempDir(), fmt.Sprintf("LAB_TEST_MARK=%d/%s", os.Getpid(), t.Name())}
}

func (c labCommand) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asLab+"=1", c.mark, "XDG_RUNTIME_DIR="+c.runtimeDir, "GORACE=atexit_sleep_ms=0")
	return cmd
}

// run runs a lab command and returns its exit code and output.
func (c labCommand) run(args ...string) (int, string) {
	cmd := c.command(args...)
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

// start starts a lab command and returns once it has printed text.
func (c labCommand) start(text string, args ...string) (cmd *exec.Cmd, rest *bufio.Reader) {
	c.t.Helper()
	cmd = c.command(args...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	rest = bufio.NewReader(out)
	for {
		line, err := rest.ReadString('\n')
		if strings.Contains(line, text) {
			return cmd, rest
		}
		if err != nil {
			cmd.Wait()
			c.t.Fatalf("%q ended without printing %q: %s", args, text, &problems)
		}
	}
}

// expectNothing looks for what a lab command left behind.
func (c labCommand) expectNothing() {
	c.t.Helper()
	if left := c.processes(); len(left) > 0 {
		c.t.Errorf("processes are left: %q", left)
	}
	if files, err := os.ReadDir(c.runtimeDir); err != nil || len(files) > 0 {
		c.t.Errorf("files are left: %v, %v", files, err)
	}
}

// processes returns the command lines of what has the mark. The test runs in a sandbox, where all processes can be seen.
func (c labCommand) processes() (commands []string) {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), c.mark) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		commands = append(commands, string(bytes.ReplaceAll(command, []byte{0}, []byte{' '})))
	}
	return commands
}

func TestDemo(t *testing.T) {
	c := newLabCommand(t)
	code, out := c.run("demo", "--iptables", "none", "--bin", binDir) // as on a system without any package
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"30 of 30 ok", "source seen 172.31.0.13 ", "fdb ", "VTEP filter", "The end"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in the output", want)
		}
	}
	for line := range strings.Lines(out) {
		if utf8.RuneCountInString(line) > lineWidth+1 {
			t.Errorf("longer than %d columns: %s", lineWidth, line)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("there are colours in a pipe")
	}
	checkLastScreen(t, out)
	c.expectNothing()
	if t.Failed() {
		t.Log(out)
	}
}

// checkLastScreen compares the faults of the demo, and who ended each, with the README, which shows the last screen. The
// figures differ each time.
func checkLastScreen(t *testing.T, out string) {
	t.Helper()
	readme, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	got, want := faultRows(out), faultRows(string(readme))
	if len(got) != len(trials("etcd")) || !slices.Equal(got, want) {
		t.Errorf("the demo ends with %q, the README shows %q", got, want)
	}
}

// faultRows returns the rows of the last screen's table, without figures: the fault, and the first word of what ended it.
func faultRows(text string) (rows []string) {
	_, table, _ := strings.Cut(text, "REPAIRED BY\n")
	row := regexp.MustCompile(`^(\S.*?) +\d+ ms +\d+  (\w+)`)
	for line := range strings.Lines(table) {
		if m := row.FindStringSubmatch(line); m != nil {
			rows = append(rows, m[1]+": "+m[2])
		} else if !strings.HasPrefix(line, "  ") {
			break
		}
	}
	return rows
}

func TestDemoFamilies(t *testing.T) {
	for name, want := range map[string][]string{
		"dual": {"198.51.100.2 fd00:198::2 ", "172.31.0.0/24 fd00:31::/64 ", "IPv4:\n", "IPv6:\n", "flannel.1 vxlan", "flannel-v6.1 vxlan", "source seen fd00:31::12 ",
			"source seen 172.31.0.12 ", "30 of 30 ok"},
		"ipv6": {"flannel-v6.1 vxlan", "etcd: fd00:31::1\n", "source seen fd00:31::12 ", "30 of 30 ok"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newLabCommand(t)
			code, out := c.run("demo", "--families", name, "--bin", binDir)
			if code != 0 {
				t.Errorf("exit code %d", code)
			}
			for _, w := range want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not in the output", w)
				}
			}
			if name == "ipv6" && strings.Contains(out, "172.31.") {
				t.Error("there are IPv4 addresses")
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// TestBadConfig: what the daemon says of a network configuration that it rejects is what the user sees, at once.
func TestBadConfig(t *testing.T) {
	c := newLabCommand(t)
	for config, want := range map[string]string{
		`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlna"}}`: "vxlna",
		`{"Network":"10.5.0.0/33"}`:                            "10.5.0.0/33",
	} {
		code, out := c.run("demo", "-n", "1", "--config", config, "--bin", binDir)
		if code != 1 || !strings.Contains(out, want) || !strings.Contains(out, "node1: selvaged does not get ready: config") {
			t.Errorf("%s: code %d, %s", config, code, out)
		}
	}
	c.expectNothing()
}

// TestInterrupt ends the demo at several moments, as Ctrl-C and as a terminal that closes do.
func TestInterrupt(t *testing.T) {
	for i, moment := range []string{"A cluster", "Leases", "node1/pod1", "30 of 30", "Pod to outside"} {
		t.Run(moment, func(t *testing.T) {
			c := newLabCommand(t)
			cmd, rest := c.start(moment, "demo", "--bin", binDir)
			signal := []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP}[i%3]
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			out, _ := io.ReadAll(rest)
			cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != interrupted && !bytes.Contains(out, []byte("The end")) {
				t.Errorf("exit code %d, want %d; output %s", code, interrupted, out)
			}
			c.expectNothing()
		})
	}
}

func TestUp(t *testing.T) {
	c := newLabCommand(t)
	if code, out := c.run("status"); code != 1 || !strings.Contains(out, "no lab named default is running") {
		t.Errorf("status without a lab: %d, %s", code, out)
	}
	cmd, rest := c.start("The lab is up", "up", "-n", "2", "--pods", "0", "--bin", binDir)
	for _, test := range []struct {
		command string
		code    int
		want    string
	}{
		{"up --bin " + binDir, 1, "a lab named default runs already"},
		{"--name other status", 1, "no lab named other is running"},
		{"nodes", 0, "172.31.0.12"},
		{"status", 0, "node1: ready"},
		{"node2 status", 0, "node2: ready"},
		{"peers", 0, "node2"},
		{"doctor", 0, "0 failures, 0 warnings"},
		{"node2", 1, "which command?"},
		{"nodse", 2, "did you mean nodes"},
		{"statsu", 2, "did you mean status?"},
		{"exec node1 selvaged doctor", 0, "0 failures, 0 warnings"},
		{"exec node1 etcdctl get --prefix --keys-only /coreos.com", 0, "/coreos.com/network/subnets/10.5."},
		{"pod add node1", 0, "node1/pod1 10.5."},
		{"pod add node2 web", 0, "node2/web 10.5."},
		{"pod add node3", 1, `there is no node "node3"`},
		{"pod add", 2, "usage: pod add NODE [NAME] | del POD"},
		{"probe", 0, "2 of 2 ok"},
		{"probe web node1", 0, "node2/web"},
		{"full", 0, "0 fragments"},
		{"full web outside", 0, "0 fragments"},
		{"probe outside web", 1, "FAIL"},
		{"stream web outside 0.1", 0, " 0 lost"},
		{"connectivity-test --restart", 0, "on 2 nodes in "},
		{"exec node1 ip route add blackhole 198.51.100.2", 0, ""},
		{"connectivity-test", 1, "first-node1 on node1 -> connect 198.51.100.2:"},
		{"exec node1 ip route del blackhole 198.51.100.2", 0, ""},
		{"connectivity-test node1", 2, "usage: connectivity-test [--restart]"},
		{"exec node2 hostname", 0, "node2\n"},
		{"exec web cat /proc/sys/net/ipv6/conf/all/forwarding", 0, "0\n"},
		{"exec pod1 sh -c 'exit 5'", 5, ""},
		{"exec node1 no-such-program", 1, "not found"},
		{"exec nowhere true", 1, `there is no pod or node "nowhere"`},
		{"kernel node1", 0, "node2's pods"},
		{"explain web", 0, "belongs to node2"},
		{"node2 explain node1", 0, "belongs to node1"},
		{"explain", 1, "is missing. Usage: selvaged explain"},
		{"fault", 0, "route-del"},
		{"fault node1 no-such", 1, "there is no fault"},
		{"fault node1 daemon-stop", 0, ""},
		{"nodes", 0, "not running"},
		{"status", 4, "selvaged does not run here"},
		{"fault node1 route-del node2", 0, ""},
		{"probe pod1 web", 1, "FAIL"},
		{"fault node1 daemon-start", 0, ""},
		{"logs node1", 0, ""},
		{"pod del web", 0, ""},
		{"probe", 1, "fewer than two pods"},
		{"help", 0, "lab demo"},
		{"no-such", 2, "there is no command"},
	} {
		args, err := splitLine(test.command)
		if err != nil {
			t.Fatal(err)
		}
		if code, out := c.run(args...); code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("lab %s: code %d, want %d; output %q, want %q in it", test.command, code, test.code, out, test.want)
		}
	}
	if code, out := c.run("down"); code != 0 {
		t.Errorf("down: code %d, %s", code, out)
	}
	out, _ := io.ReadAll(rest)
	if err := cmd.Wait(); err != nil || !bytes.Contains(out, []byte("The lab is down")) { // its last moment comes after down has ended
		t.Errorf("up: %v, %s", err, out)
	}
	c.expectNothing()
}

// TestCrash kills the outermost process, which cannot clean up then: all else has to end by itself, and the next lab finds
// what is left.
func TestCrash(t *testing.T) {
	c := newLabCommand(t)
	cmd, _ := c.start("The lab is up", "up", "-n", "1", "--bin", binDir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for len(c.processes()) > 0 { // the kernel ends them, and does not say when it has
	}
	if files, err := os.ReadDir(filepath.Join(c.runtimeDir, "selvage-lab", "default")); err != nil || len(files) != 1 {
		t.Errorf("files after the crash: %v, %v, want the socket", files, err)
	}
	code, out := c.run("status")
	for strings.Contains(out, errEnded.Error()) { // the socket is closed a moment after a process has lost its environment
		code, out = c.run("status")
	}
	if code != 1 || !strings.Contains(out, "no lab named default is running") {
		t.Errorf("status after the crash: %d, %s", code, out)
	}
	cmd, _ = c.start("The lab is up", "up", "-n", "1", "--bin", binDir)
	if code, out := c.run("status"); code != 0 {
		t.Errorf("status of the next lab: %d, %s", code, out)
	}
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("up, interrupted: %v", err)
	}
	c.expectNothing()
}

func TestSandboxCommand(t *testing.T) {
	c := newLabCommand(t)
	if code, out := c.run("sandbox", "--", "sh", "-c", "touch /tmp/x && ls /tmp | wc -l; exit 4"); code != 4 || out == "" {
		t.Errorf("code %d, output %q", code, out)
	}
	if _, err := os.Stat("/tmp/x"); err == nil {
		t.Error("the file in /tmp is still there")
	}
	for _, args := range [][]string{
		{"sandbox"}, {"demo", "x"}, {"up", "--no-such"}, {"--name", "A/B", "status"},
		{"demo", "--nodes", "0"}, {"up", "-n", "-1"}, {"demo", "--pods", "-1"}, {"up", "--mtu", "0"}, {"up", "--segments", "0"},
		{"demo", "--etcd-members", "0"}, {"matrix", "-n", "0"}, {"demo", "-n", "201", "--bin", binDir},
	} {
		if code, out := c.run(args...); code != 1 || !strings.HasPrefix(out[strings.LastIndex(out, "lab: "):], "lab: ") {
			t.Errorf("lab %q: code %d, output %s", args, code, out)
		}
	}
	c.expectNothing()
}
