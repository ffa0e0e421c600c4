package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// load is what iperf3 sends.
type load struct {
	protocol string // tcp or udp
	flows    int
}

func (l load) name() string { return strings.ToUpper(l.protocol) }

func (l load) String() string {
	if l.flows == 1 {
		return l.name() + ", one flow"
	}
	return fmt.Sprintf("%s, %d flows", l.name(), l.flows)
}

// args are iperf3's. TCP is Reno, which every kernel has: the machine's default may be one that paces itself by the round
// trip time. Datagrams are of one size on all ways, which fits into one packet on each, and are sent as fast as that goes.
// Each end has a processor of its own: else the scheduler decides each time whether they share one.
func (l load) args() []string {
	args := []string{"--parallel", strconv.Itoa(l.flows), "--time", strconv.Itoa(seconds)}
	if cpus := processors(); len(cpus) > 1 {
		args = append(args, "--affinity", fmt.Sprintf("%d,%d", cpus[0], cpus[1]))
	}
	if l.protocol == "udp" {
		return append(args, "--udp", "--bitrate", "0", "--length", strconv.Itoa(datagram))
	}
	return append(args, "--congestion", "reno")
}

// datagram is how many bytes each has.
const datagram = 1350

// processors are those that this program, and so those that it starts, may run on.
func processors() (cpus []int) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	for cpu := range 8 * int(unsafe.Sizeof(set)) {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// seconds is how long each load lasts.
const seconds = 1

// throughput is what came of a load.
type throughput struct {
	Bits float64 // a second, that arrived
	CPU  float64 // seconds of the whole machine's, for a gigabyte that arrived
}

// iperf puts a load on a way, by iperf3 at both ends.
func (w way) iperf(ctx context.Context, l load) (t throughput, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	server, err := w.to.serve(ctx)
	if err != nil {
		return t, fmt.Errorf("%s: %w", w.name, err)
	}
	defer func() {
		if err != nil {
			cancel() // it would wait for a client for ever
		}
		if ended := server.Wait(); err == nil && ended != nil {
			err = fmt.Errorf("%s: iperf3 as a server: %w", w.name, ended)
		}
	}()
	var out, problems bytes.Buffer
	client := exec.CommandContext(ctx, "iperf3", append([]string{"--json", "--client", w.to.addr.String()}, l.args()...)...)
	client.Stdout, client.Stderr = &out, &problems
	before, err := machineCPU()
	if err != nil {
		return t, err
	}
	if err := w.from.do(client.Start); err != nil {
		return t, fmt.Errorf("start iperf3: %w", err)
	}
	failed := client.Wait() // what was wrong stands in the JSON
	after, err := machineCPU()
	if err != nil {
		return t, err
	}
	r, err := parseIperf(out.Bytes())
	if err == nil {
		err = failed
	}
	if err != nil {
		return t, fmt.Errorf("%s, %s: iperf3: %w %s", w.name, l, err, bytes.TrimSpace(problems.Bytes()))
	}
	return throughput{Bits: r.Bits, CPU: (after - before).Seconds() / (r.Bytes / 1e9)}, nil
}

// serve starts an iperf3 that serves one client, and returns when it listens.
func (e end) serve(ctx context.Context) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, "iperf3", "--server", "--one-off", "--forceflush")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := e.do(cmd.Start); err != nil {
		return nil, fmt.Errorf("start iperf3: %w", err)
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if strings.HasPrefix(line, "Server listening") {
			break
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("iperf3 does not listen: %w", err), cmd.Wait())
		}
	}
	// What else it prints is nobody's; a pipe that fills up would stop it.
	go func() { _, _ = io.Copy(io.Discard, lines) }() // ends with the program
	return cmd, nil
}

// received is what iperf3 says arrived.
type received struct {
	Bytes float64 `json:"bytes"`
	Bits  float64 `json:"bits_per_second"`
}

// parseIperf reads what iperf3 --json prints at the client.
func parseIperf(out []byte) (received, error) {
	var report struct {
		Error string `json:"error"`
		End   struct {
			Received *received `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return received{}, fmt.Errorf("%w: it printed %q", err, firstBytes(string(out), 200))
	}
	if report.Error != "" {
		return received{}, errors.New(report.Error)
	}
	if r := report.End.Received; r != nil && r.Bytes > 0 {
		return *r, nil
	}
	return received{}, errors.New("nothing arrived")
}
