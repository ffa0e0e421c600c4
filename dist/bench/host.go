package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine says where the figures are from.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	MemoryMB int    `json:"memory_mb"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Daemon   string `json:"daemon"`
	Etcd     string `json:"etcd"`
	IProute2 string `json:"iproute2"`
	Peer     string `json:"peer,omitempty"`
}

func (m Machine) String() string {
	s := fmt.Sprintf("%s, %d cores, %d MB; Linux %s; %s; %s; %s", m.CPU, m.Cores, m.MemoryMB, m.Kernel, m.Daemon, m.Etcd, m.IProute2)
	if m.Peer != "" {
		s += "; peer " + m.Peer
	}
	return s
}

func describeMachine(o Options) Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Peer: o.Peer, CPU: "unknown CPU"}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo") // what cannot be read is not told
	for line := range strings.Lines(string(cpuinfo)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	var u unix.Utsname
	_ = unix.Uname(&u) // fails for a bad pointer only
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	var info unix.Sysinfo_t
	_ = unix.Sysinfo(&info) // the same
	m.MemoryMB = int(info.Totalram * uint64(info.Unit) / 1e6)
	m.Daemon, m.Etcd, m.IProute2 = firstLine(o.program("selvaged"), "--version"), firstLine(o.program("etcd"), "--version"), firstLine("ip", "-V")
	return m
}

// firstLine is the first line that a program prints, or what went wrong.
func firstLine(program string, args ...string) string {
	out, err := exec.Command(program, args...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil {
		return fmt.Sprintf("%s: %v", program, err)
	}
	return line
}
