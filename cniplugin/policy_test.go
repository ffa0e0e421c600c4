package cniplugin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	records "github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=db-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u1"

// Answers of a daemon.
const (
	inForce  = "HTTP/1.0 204 No Content\r\n\r\n"
	isolated = "HTTP/1.0 202 Accepted\r\n\r\n"
	timedOut = "HTTP/1.0 504 Gateway Timeout\r\nContent-Type: text/plain\r\n\r\nno pod prod/db-0 in the API\n"
	busy     = "HTTP/1.0 503 Service Unavailable\r\n\r\ntoo many\n"
)

// policed is a node whose status file names a socket, and an ADD of a pod.
type policed struct {
	*node
	socket string

	mu      sync.Mutex
	reports []string // what a daemon got: the target, and the pod of the record
}

func newPoliced(t *testing.T) *policed {
	t.Helper()
	p := &policed{node: newNode(t)}
	p.socket = filepath.Join(p.dir, "s.sock")
	p.setenv("CNI_ARGS=" + podArgs)
	p.status(subnetfile.Status{Usable: true, PolicySocket: p.socket})
	return p
}

func (p *policed) status(s subnetfile.Status) {
	p.t.Helper()
	if err := subnetfile.WriteStatus(p.conf["subnetFile"].(string), s); err != nil {
		p.t.Fatal(err)
	}
}

// daemon listens on the socket until the test ends, or stop is called. answer gets the number of the connection, from 1
// on, after its request was read.
func (p *policed) daemon(answer func(i int, c net.Conn)) (stop func()) {
	p.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.socket, Net: "unix"})
	if err != nil {
		p.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as when a daemon is killed
	var serving sync.WaitGroup
	serving.Go(func() {
		for i := 1; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !p.record(c) {
				c.Close()
				return
			}
			answer(i, c)
			c.Close()
		}
	})
	stop = sync.OnceFunc(func() {
		if c, err := net.Dial("unix", p.socket); err != nil {
			p.t.Error(err)
		} else {
			c.Close() // the last one in the backlog
		}
		serving.Wait()
		l.Close()
	})
	p.t.Cleanup(stop)
	return stop
}

// record reads a request as the daemon's server does. It returns false if there is none.
func (p *policed) record(c net.Conn) bool {
	report := "malformed"
	r, err := http.ReadRequest(bufio.NewReader(c))
	if errors.Is(err, io.EOF) {
		return false
	}
	if err == nil {
		body, err := io.ReadAll(r.Body)
		if record, recordErr := records.Unmarshal(body); err == nil && recordErr == nil {
			report = r.Method + " " + r.URL.Path + " " + record.Key.String() + " " + record.Pod.Namespace + "/" + record.Pod.Name + " " + record.Pod.UID
			if r.URL.Path == records.PathAttach {
				if _, err := records.ParseAttachQuery(r.URL.Query().Get); err != nil || len(record.Result) == 0 || record.Delegate != "bridge" {
					report += " malformed"
				}
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports = append(p.reports, report)
	return true
}

// answers is a daemon that gives these answers, the last one again and again.
func (p *policed) answers(all ...string) (stop func()) {
	p.t.Helper()
	return p.daemon(func(i int, c net.Conn) { _, _ = io.WriteString(c, all[min(i, len(all))-1]) })
}

const (
	attachReport = "POST /v1/attach cbr0:c1:eth0 prod/db-0 u1"
	detachReport = "POST /v1/detach cbr0:c1:eth0 prod/db-0 u1"
)

// reported fails unless the daemon, which ends by this, got just these reports.
func (p *policed) reported(stop func(), want ...string) {
	p.t.Helper()
	stop() // also accepts what was in the backlog, since no answer was awaited
	if got, want := strings.Join(p.reports, "\n"), strings.Join(want, "\n"); got != want {
		p.t.Errorf("the daemon got\n%s\nwant\n%s", got, want)
	}
	p.reports = nil
}

// undone fails unless ADD has left nothing.
func (p *policed) undone() {
	p.t.Helper()
	p.delegated("ADD", "DEL")
	wantFiles(p.t, p.state)
	wantFiles(p.t, records.Dir(p.conf["subnetFile"].(string)))
	if p.stdout.Len() > 0 {
		p.t.Errorf("printed %s", p.stdout.String())
	}
}

func TestPoliciesInForce(t *testing.T) {
	p := newPoliced(t)
	stop := p.answers(inForce)
	p.ok(p.verbs.Add)
	p.delegated("ADD")
	p.ok(p.verbs.Del)
	p.ok(p.verbs.Del) // the pod may have another container by now
	p.reported(stop, attachReport, detachReport)
	if p.stderr.Len() > 0 {
		t.Errorf("on stderr: %s", p.stderr.String())
	}
}

// TestNoReport: a daemon is asked only if the status file names a socket, and only about the interface that policies are for.
func TestNoReport(t *testing.T) {
	for name, change := range map[string]func(*policed){
		"no status file":    func(p *policed) { p.status(subnetfile.Status{Usable: true}) },
		"no policies":       func(p *policed) { p.status(subnetfile.Status{Reason: "no lease"}) },
		"no pod":            func(p *policed) { p.setenv("CNI_ARGS=IgnoreUnknown=1") },
		"no arguments":      func(p *policed) { p.setenv("CNI_ARGS=") },
		"half of a name":    func(p *policed) { p.setenv("CNI_ARGS=K8S_POD_NAMESPACE=prod") },
		"another interface": func(p *policed) { write(t, filepath.Join(p.state, "cbr0:c1:eth0"), "{}"); p.args.IfName = "net1" },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPoliced(t)
			if err := os.MkdirAll(p.state, 0o700); err != nil {
				t.Fatal(err)
			}
			stop := p.answers(timedOut)
			change(p)
			p.ok(p.verbs.Add)
			p.ok(p.verbs.Del)
			p.reported(stop)
		})
	}
	p := newPoliced(t)
	p.args.IfName = "net1" // the only one on this network
	stop := p.answers(inForce)
	p.ok(p.verbs.Add)
	p.reported(stop, strings.ReplaceAll(attachReport, "eth0", "net1"))
}

// TestRecordNamesThePod: with or without policies.
func TestRecordNamesThePod(t *testing.T) {
	n := newNode(t)
	n.setenv("CNI_ARGS=" + podArgs)
	n.ok(n.verbs.Add)
	reader := records.Reader{Dir: records.Dir(n.conf["subnetFile"].(string))}
	all, _, _, err := reader.Read()
	if want := (records.Pod{Namespace: "prod", Name: "db-0", UID: "u1"}); err != nil || len(all) != 1 || all[0].Pod != want {
		t.Errorf("records %+v, %v, want one of %+v", all, err, want)
	}
}

// TestPoliciesLate: ADD does not return before the daemon answers.
func TestPoliciesLate(t *testing.T) {
	p := newPoliced(t)
	p.conf["policyWait"] = 60
	var returned atomic.Bool
	asked, rules := make(chan struct{}), make(chan struct{})
	p.daemon(func(_ int, c net.Conn) {
		close(asked)
		<-rules
		if returned.Load() {
			t.Error("ADD returned before the rules were in force")
		}
		_, _ = io.WriteString(c, inForce)
	})
	go func() { <-asked; close(rules) }()
	p.ok(p.verbs.Add)
	returned.Store(true)
}

func TestPoliciesNever(t *testing.T) {
	p := newPoliced(t)
	p.conf["policyWait"] = 0.01
	end := make(chan struct{})
	p.daemon(func(i int, c net.Conn) {
		if i == 1 { // the report of the end is not answered either, and not awaited
			<-end
		}
	})
	p.fails(p.verbs.Add, types.ErrTryAgainLater, "the network policies of pod prod/db-0 are not in force", "does not answer (policyWait is 10ms)")
	close(end)
	p.undone()
}

// TestPoliciesFail has all ways in which a daemon does not confirm the rules end in an ADD that is undone.
func TestPoliciesFail(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		says   string
	}{
		"not in time":    {timedOut, "answers 504: no pod prod/db-0 in the API (policyWait"},
		"fails":          {"HTTP/1.0 500 Internal Server Error\r\n\r\nthe kernel has no nf_tables", "answers 500: the kernel"},
		"not root":       {"HTTP/1.1 403 Forbidden\r\n\r\nwant a process of root", "answers 403: want"},
		"always busy":    {busy, "answers 503: too many"},
		"closes at once": {"", `no complete answer: ""`},
		"closes halfway": {"HTTP/1.0 204 No Content\r\n", "no complete answer: \"HTTP/1.0 204 No"},
		"garbage":        {"SSH-2.0-OpenSSH_9.9\r\n\r\n", "no complete answer: \"SSH-2.0"},
		"no number":      {"HTTP/1.0 fine\r\n\r\n", "no complete answer"},
		"endless":        {"HTTP/1.0 500 x\r\n\r\n" + strings.Repeat("x", 1<<20), "answers 500: xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPoliced(t)
			p.conf["policyWait"] = 0.05
			stop := p.answers(test.answer)
			p.fails(p.verbs.Add, types.ErrTryAgainLater, "the network policies of pod prod/db-0 are not in force", test.says)
			p.undone()
			stop()
			if last := len(p.reports) - 1; last < 1 || p.reports[0] != attachReport || p.reports[last] != detachReport {
				t.Errorf("the daemon got %q, want the attachment, and its end", p.reports)
			}
		})
	}
}

// TestPoliciesTriedAgain has a fault pass while ADD waits.
func TestPoliciesTriedAgain(t *testing.T) {
	for name, answers := range map[string][]string{
		"busy": {busy, busy, inForce}, "killed": {"", "HTTP/1.0 204", inForce}, "isolated": {"", isolated},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPoliced(t)
			p.conf["policyWait"] = 60
			p.answers(answers...)
			p.ok(p.verbs.Add)
			p.delegated("ADD")
			if says := strings.Contains(p.stderr.String(), "isolated until"); says != (name == "isolated") {
				t.Errorf("on stderr: %s", p.stderr.String())
			}
		})
	}
	t.Run("another version", func(t *testing.T) { // which enforces nothing
		p := newPoliced(t)
		p.answers("HTTP/1.0 404 Not Found\r\n\r\n404 page not found\n")
		p.ok(p.verbs.Add)
	})
	t.Run("policies end", func(t *testing.T) {
		p := newPoliced(t)
		p.conf["policyWait"] = 60
		p.daemon(func(int, net.Conn) { p.status(subnetfile.Status{Usable: true}) })
		p.ok(p.verbs.Add)
	})
	t.Run("damaged status file", func(t *testing.T) {
		p := newPoliced(t)
		path := subnetfile.StatusPath(p.conf["subnetFile"].(string))
		write(t, path, "")
		p.conf["policyWait"] = 0.05
		p.fails(p.verbs.Add, types.ErrTryAgainLater, path)
		p.undone()
		p.conf["policyWait"] = 60
		p.answers(inForce)
		repaired := make(chan error, 1)
		go func() {
			repaired <- subnetfile.WriteStatus(p.conf["subnetFile"].(string), subnetfile.Status{Usable: true, PolicySocket: p.socket})
		}()
		p.ok(p.verbs.Add)
		if err := <-repaired; err != nil {
			t.Fatal(err)
		}
	})
}

// TestPoliciesWithoutDaemon: the daemon is stopped or was killed; it may start again while ADD waits.
func TestPoliciesWithoutDaemon(t *testing.T) {
	for name, leave := range map[string]func(*policed){
		"stopped": func(*policed) {},
		"killed":  func(p *policed) { p.answers(inForce)() },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPoliced(t)
			leave(p)
			p.conf["policyWait"] = 0.05
			p.fails(p.verbs.Add, types.ErrTryAgainLater, "no process listens on "+p.socket)
			p.undone()
			p.conf["policyWait"] = 0
			p.ok(p.verbs.Add)
			p.ok(p.verbs.Del)
			p.delegated("ADD", "DEL")

			p.conf["policyWait"] = 60
			if err := os.Remove(p.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			added := make(chan error, 1)
			go func() { added <- p.call(p.verbs.Add) }()
			p.answers(inForce)
			if err := <-added; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPoliciesNotAwaited: with policyWait 0 the daemon is notified, and its answer does not matter.
func TestPoliciesNotAwaited(t *testing.T) {
	p := newPoliced(t)
	p.conf["policyWait"] = 0
	end := make(chan struct{})
	stop := p.daemon(func(int, net.Conn) { <-end })
	p.ok(p.verbs.Add)
	p.delegated("ADD")
	p.ok(p.verbs.Del)
	close(end)
	p.reported(stop, attachReport, detachReport)
}

// TestPoliciesOfASecondADD: what may be a running container's is not undone.
func TestPoliciesOfASecondADD(t *testing.T) {
	p := newPoliced(t)
	p.conf["policyWait"] = 0.01
	p.answers(inForce, timedOut)
	p.ok(p.verbs.Add)
	p.fails(p.verbs.Add, types.ErrTryAgainLater, "answers 504")
	p.delegated("ADD", "ADD")
	wantFiles(t, p.state, "c1")
}

func TestPoliciesEndWithTheContext(t *testing.T) {
	p := newPoliced(t)
	p.conf["policyWait"] = 60
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan struct{})
	p.daemon(func(i int, _ net.Conn) {
		if i == 1 {
			cancel()
			<-end
		}
	})
	p.fails(funcsOf(ctx, p.plugin).Add, types.ErrTryAgainLater, "does not answer")
	close(end)
	p.undone()
}

func TestPolicyConfig(t *testing.T) {
	n := newNode(t)
	for _, wait := range []any{-1, 61, "2s", true} {
		n.conf["policyWait"] = wait
		n.fails(n.verbs.Add, types.ErrDecodingFailure, "policyWait is", "want a number of seconds")
	}
	n.conf["policyWait"], n.conf["policyFailure"] = 60, "open"
	n.fails(n.verbs.Add, types.ErrDecodingFailure, `policyFailure is "open", want "isolate" or "fail"`)
	for _, failure := range []string{"isolate", "fail"} {
		c, err := parseNetConf([]byte(`{"policyFailure":"` + failure + `"}`))
		if err != nil || c.PolicyFailure != failure || c.policyWait != defaultPolicyWait {
			t.Errorf("%s: %+v, %v", failure, c, err)
		}
	}
}
