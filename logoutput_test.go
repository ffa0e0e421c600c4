package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/sirupsen/logrus"
)

// blocking is a file that takes no line until it is opened.
type blocking struct {
	open chan struct{}
	bytes.Buffer
}

func (b *blocking) Write(p []byte) (int, error) {
	<-b.open
	return b.Buffer.Write(p)
}

// TestLogIsBlocked: a log without a reader blocks no writer, and dropped lines are counted, in the log's format.
func TestLogIsBlocked(t *testing.T) {
	file := &blocking{open: make(chan struct{})}
	log := logrus.New()
	log.SetFormatter(&logrus.JSONFormatter{})
	o := newLogOutput(file, log)
	const lines = 2*queuedLines + 2
	for range lines {
		if n, err := o.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatal(n, err)
		}
	}
	close(file.open)
	o.close()
	got := file.String()
	n := strings.Count(got, "line\n")
	if n < queuedLines || n >= lines {
		t.Errorf("%d lines were written, want the %d that have room", n, queuedLines)
	}
	_, note, _ := strings.Cut(got, "{")
	note, _, _ = strings.Cut(note, "\n")
	var dropped struct {
		Msg, Level, Time string
		Lines            int
	}
	if err := json.Unmarshal([]byte("{"+note), &dropped); err != nil || dropped.Lines != lines-n ||
		dropped.Msg != "log lines were dropped: stderr was blocked" || dropped.Level != "warning" || dropped.Time == "" {
		t.Errorf("%+v, %v, want a line about %d dropped lines", dropped, err, lines-n)
	}
	_, _ = o.Write([]byte("after the end\n")) // and is lost
}

// TestLogReaderGone: a process with the reader of its log gone lives on. It runs itself with a pipe without a reader.
func TestLogReaderGone(t *testing.T) {
	if os.Getenv("SELVAGE_TEST_BROKEN_PIPE") != "" {
		surviveBrokenPipe()
		for range 3 {
			_, _ = os.Stderr.WriteString("line\n")
			_, _ = os.Stdout.WriteString("line\n")
		}
		os.Exit(7)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLogReaderGone$")
	cmd.Env = append(os.Environ(), "SELVAGE_TEST_BROKEN_PIPE=1")
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Run()
	w.Close()
	if state := cmd.ProcessState.Sys().(syscall.WaitStatus); state.ExitStatus() != 7 {
		t.Errorf("it ended with %v (%v), want exit status 7", cmd.ProcessState, err)
	}
}

// TestSteadyLines: two failures of one cause give the same line.
func TestSteadyLines(t *testing.T) {
	for line, want := range map[string]string{
		"read tcp 192.0.2.1:39462->192.0.2.9:2379: connection reset":      "read tcp 192.0.2.1->192.0.2.9:2379: connection reset",
		"read tcp [2001:db8::1]:39462->[2001:db8::9]:2379: i/o timeout":   "read tcp [2001:db8::1]->[2001:db8::9]:2379: i/o timeout",
		"unexpected value 0xc000123abc":                                   "unexpected value 0x…",
		"mark 0x4000/0x4000, nexthop 0xc0a80101, dial tcp 192.0.2.9:2379": "mark 0x4000/0x4000, nexthop 0xc0a80101, dial tcp 192.0.2.9:2379",
	} {
		if got := string(steady([]byte(line))); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	var out bytes.Buffer
	log := logrus.New()
	log.SetOutput(&out)
	log.SetFormatter(steadyFormatter{&logrus.JSONFormatter{}})
	log.WithField("error", "read tcp 192.0.2.1:1->192.0.2.9:2").Error("failed")
	if strings.Contains(out.String(), ":1-") {
		t.Errorf("got %s", out.String())
	}
}
