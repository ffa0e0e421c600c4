package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/mesh/exchange"
)

const (
	// ownProgram is the program that runs, also after its file was replaced.
	ownProgram = "/proc/self/exe"
	// maxExamination is the size of what doctor prints, in bytes.
	maxExamination = 256 << 10
	// lowest is the lowest priority of a process (setpriority(2)).
	lowest = 19
)

// Examiner returns what examines this node beside its daemon: selvaged doctor without probes of other nodes, in a
// process of its own, so that neither its memory nor a fault in it is the daemon's. It has the lowest priority.
func Examiner(socket, subnetFile string) exchange.Examiner {
	checks := slices.DeleteFunc(doctor.Checks(), func(name string) bool { return name == doctor.ProbingCheck })
	args := []string{
		"selvaged", "doctor", "--output=json", "--check=" + strings.Join(checks, ","), "--socket=" + socket,
		"--subnet-file=" + subnetFile, "--timeout=10s",
	}
	return func(ctx context.Context) (mesh.Examination, error) {
		c := exec.CommandContext(ctx, ownProgram)
		c.Args = args
		if _, err := os.Stat(defaultCNIConfDir); errors.Is(err, fs.ErrNotExist) {
			c.Args = append(slices.Clip(args), "--cni-conf-dir=") // the daemon's container does not have it
		}
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=1"}
		c.WaitDelay = time.Second
		return examination(c)
	}
}

// examination runs doctor, and returns what it has found.
func examination(c *exec.Cmd) (e mesh.Examination, err error) {
	var out, failed bounded
	c.Stdout, c.Stderr = &out, &failed
	if err := c.Start(); err != nil {
		return e, fmt.Errorf("start selvaged doctor: %w", err)
	}
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, c.Process.Pid, lowest) // it may have ended
	err = c.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok &&
		(exit.ExitCode() == ExitFailure || exit.ExitCode() == ExitWarning) {
		err = nil // it has found something
	}
	var r doctor.Report
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &r)
	}
	if err != nil {
		return e, fmt.Errorf("selvaged doctor: %w: %s", err, strings.TrimSpace(failed.String()))
	}
	e = mesh.Examination{At: r.At, Passed: r.Count(doctor.Pass), Findings: []mesh.Examined{}}
	for _, f := range r.Findings {
		if f.Level != doctor.Pass {
			e.Findings = append(e.Findings, mesh.Examined{
				Check: f.Check, Level: string(f.Level), Evidence: f.Evidence, Advice: f.Advice,
			})
		}
	}
	return e, nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(text []byte) (int, error) {
	b.Buffer.Write(text[:min(len(text), maxExamination-b.Len())])
	return len(text), nil
}
