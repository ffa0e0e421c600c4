package userspace

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
)

// roleFile says what the test binary does as the program of a Keeper, see TestMain.
const roleFile = "/tmp/role"

// TestMain: a Keeper starts this binary as the program. What it does then is in a file, since it gets no environment.
// unix.Exit writes nothing about coverage.
func TestMain(m *testing.M) {
	if os.Args[0] != ProgramName {
		os.Exit(sandbox.Run(m.Run))
	}
	role, _ := os.ReadFile(roleFile)
	switch string(role) {
	case "serve", "hang":
		_ = os.Remove(Socket(os.Args[1])) // of one that was killed
		l, err := net.Listen("unix", Socket(os.Args[1]))
		if err != nil {
			unix.Exit(1)
		}
		if string(role) == "hang" {
			_ = os.WriteFile(roleFile, []byte("serve"), 0o600)
			time.Sleep(time.Hour) // and is never ready
		}
		os.Stdout.WriteString(Ready + "\n")
		os.Stdout.Close()
		for {
			c, err := l.Accept()
			if err != nil {
				unix.Exit(1)
			}
			c.Close()
		}
	case "environment":
		os.Stderr.WriteString(strings.Join(os.Environ(), " ") + "\n")
		unix.Exit(1)
	default:
		os.Stderr.WriteString("first\n" + ProgramName + ": it fails\n")
		unix.Exit(1)
	}
}

const device = "test-wg"

func newKeeper(t *testing.T, role string) (k *Keeper, wake chan struct{}) {
	t.Helper()
	setRole(t, role)
	wake = make(chan struct{}, 16)
	k = NewKeeper(func() { wake <- struct{}{} })
	t.Cleanup(func() {
		if err := k.End(device); err != nil {
			t.Error(err)
		}
	})
	return k, wake
}

func setRole(t *testing.T, role string) {
	t.Helper()
	if err := os.WriteFile(roleFile, []byte(role), 0o600); err != nil {
		t.Fatal(err)
	}
}

// started starts the process of the device, and returns it once it is ready. The backoff of an earlier one is over.
func started(t *testing.T, k *Keeper, wake chan struct{}) Server {
	t.Helper()
	now := time.Now()
	if k.of(device).run != nil {
		now = now.Add(startBackoff.Max)
	}
	for err := k.Start(device, now); ; err = k.Start(device, now) {
		if errors.Is(err, ErrStarting) {
			<-wake
			if !k.Starting(device) {
				break
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	s, ok := At(device)
	if !ok || !s.Ours {
		t.Fatalf("%+v, %t, want a process of ours", s, ok)
	}
	return s
}

// event waits for the next event.
func event(t *testing.T, k *Keeper, wake chan struct{}) Event {
	t.Helper()
	for {
		if all := k.Events(); len(all) > 0 {
			return all[0]
		}
		<-wake
	}
}

// TestKeeper: a process in a session of its own, which a keeper of another daemon ends as well, and whose end is noted.
func TestKeeper(t *testing.T) {
	k, wake := newKeeper(t, "serve")
	s := started(t, k, wake)
	if e := event(t, k, wake); e.What != Started || e.PID != s.PID {
		t.Errorf("%+v, want that process %d has started", e, s.PID)
	}
	if sid, err := unix.Getsid(s.PID); err != nil || sid != s.PID {
		t.Errorf("session %d, %v, want one of its own, %d", sid, err, s.PID)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s has %v, %v, want the mode 0700", dir, info, err)
	}
	if err := unix.Kill(s.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := event(t, k, wake); e.What != Ended || e.PID != s.PID || e.Cause != "signal: terminated" {
		t.Errorf("%+v, want that process %d was ended by a signal", e, s.PID)
	}
	if c := k.Counts(device); c != (Counts{Ended: 1}) {
		t.Errorf("%+v, want one that ended", c)
	}
	var next Server
	for err := k.Start(device, time.Now()); err != nil; err = k.Start(device, time.Now()) { // after the backoff
		if !errors.Is(err, ErrStarting) && !strings.Contains(err.Error(), "signal: terminated") {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	next, _ = At(device)
	if next.PID == s.PID || !next.Ours {
		t.Errorf("%+v, want another process than %d", next, s.PID)
	}
	if err := os.WriteFile(logPath("old"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if left := Stale(); !slices.Equal(left, []string{logPath("old")}) {
		t.Errorf("%v is stale, want that of the process that has ended", left)
	}
	if err := os.Remove(logPath("old")); err != nil {
		t.Fatal(err)
	}
	if err := NewKeeper(func() {}).End(device); err != nil { // of another daemon
		t.Fatal(err)
	}
	if s, ok := At(device); ok {
		t.Errorf("process %+v is left", s)
	}
	if left, err := os.ReadDir(dir); err == nil {
		t.Errorf("%v is left", left)
	}
}

// TestKeeperExpected: the end of a process whose device is removed is no event.
func TestKeeperExpected(t *testing.T) {
	k, wake := newKeeper(t, "serve")
	started(t, k, wake)
	event(t, k, wake)
	r := k.of(device).run
	if err := k.End(device); err != nil {
		t.Fatal(err)
	}
	<-r.done
	if e := k.Events(); len(e) > 0 || k.Counts(device) != (Counts{}) {
		t.Errorf("%+v, %+v, want none", e, k.Counts(device))
	}
}

// TestKeeperOrphan: a process that runs while its device is missing makes room for another one.
func TestKeeperOrphan(t *testing.T) {
	k, wake := newKeeper(t, "serve")
	s := started(t, k, wake)
	event(t, k, wake)
	if next := started(t, k, wake); next == s {
		t.Errorf("%+v, want another process", next)
	}
	if e := event(t, k, wake); e.What != Ended || e.PID != s.PID || e.Cause != "its device was deleted" {
		t.Errorf("%+v, want the end of process %d", e, s.PID)
	}
}

// TestKeeperFails: a process that ends at once is named with its last line, and started again with a growing backoff.
func TestKeeperFails(t *testing.T) {
	k, wake := newKeeper(t, "fail")
	now := time.Now()
	err := k.Start(device, now)
	for errors.Is(err, ErrStarting) {
		<-wake
		err = k.Start(device, now)
	}
	if err == nil || !strings.HasSuffix(err.Error(), "has ended: it fails; it is started again after a backoff") {
		t.Fatalf("%v, want the last line of the program", err)
	}
	first := k.of(device).run
	again := k.Start(device, now)
	if again == nil || again.Error() != err.Error() || k.of(device).run != first {
		t.Errorf("%v, want the same text, and no other process", again)
	}
	now = now.Add(startBackoff.First)
	for again = k.Start(device, now); errors.Is(again, ErrStarting); again = k.Start(device, now) {
		<-wake
	}
	if again == nil || k.of(device).run == first {
		t.Errorf("%v, want another process after the backoff", again)
	}
	if e := k.Events(); len(e) > 0 {
		t.Errorf("%+v, want none: the caller has the errors", e)
	}
}

// TestEnvironment: nothing of the daemon's environment, which may hold secrets, is given to the process.
func TestEnvironment(t *testing.T) {
	t.Setenv("SELVAGED_ETCD_PASSWORD", "secret")
	k, wake := newKeeper(t, "environment")
	err := k.Start(device, time.Now())
	for errors.Is(err, ErrStarting) {
		<-wake
		err = k.Start(device, time.Now().Add(-time.Hour))
	}
	if err == nil || !strings.Contains(err.Error(), "has ended: GOTRACEBACK=none; ") {
		t.Errorf("%v, want nothing but GOTRACEBACK", err)
	}
}

// TestHung: a process of ours that does not answer is killed; one of others is not.
func TestHung(t *testing.T) {
	k, wake := newKeeper(t, "serve")
	s := started(t, k, wake)
	event(t, k, wake)
	now := time.Now()
	silent := func(reads int) {
		for i := range reads {
			k.Read(device, NoAnswer, now.Add(time.Duration(i)*failedTime/2))
		}
	}
	silent(failedReads - 1)
	k.Read(device, Answered, now)
	silent(failedReads - 1)
	if found, ok := At(device); !ok || found != s {
		t.Fatalf("%+v, want %+v: it has answered in between", found, s)
	}
	k.Read(device, Answered, now)
	silent(failedReads)
	if e := event(t, k, wake); e != (Event{Device: device, PID: s.PID, What: Hung}) {
		t.Errorf("%+v, want that process %d hung", e, s.PID)
	}
	if c := k.Counts(device); c != (Counts{Hung: 1}) {
		t.Errorf("%+v, want one that hung", c)
	}

	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", Socket(device)) // this process is not ours
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	silent(failedReads)
	if err := k.End(device); err != nil {
		t.Fatal(err)
	}
	if s, ok := At(device); !ok || s.Ours || s.PID != os.Getpid() {
		t.Errorf("%+v, %t, want this process, which is not ours", s, ok)
	}
	if e := k.Events(); len(e) > 0 {
		t.Errorf("%+v, want none", e)
	}
}

// TestLost: a process of ours whose socket was removed is found and killed, by the daemon that started it and by another
// one. That of another network namespace is not.
func TestLost(t *testing.T) {
	starter, wake := newKeeper(t, "serve")
	other := NewKeeper(func() {})
	for _, k := range []*Keeper{starter, other} {
		s := started(t, starter, wake)
		event(t, starter, wake)
		r := starter.of(device).run
		now := time.Now()
		missing := func(reads int) {
			for i := range reads {
				k.Read(device, NoSocket, now.Add(time.Duration(i)*failedTime/2))
			}
		}
		missing(failedReads)
		if found, ok := At(device); !ok || found != s {
			t.Fatalf("%+v, want %+v: it has its socket", found, s)
		}
		if err := os.Remove(Socket(device)); err != nil {
			t.Fatal(err)
		}
		if k == other {
			elsewhere(t, func() { missing(failedReads) })
		}
		missing(failedReads - 1)
		if !serves(s.PID, device) {
			t.Fatal("the process was killed too early")
		}
		k.Read(device, Answered, now)
		missing(failedReads)
		<-r.done
		if e := k.Events(); len(e) != 1 || e[0] != (Event{Device: device, PID: s.PID, What: Lost}) {
			t.Errorf("%+v, want that the socket of process %d is gone", e, s.PID)
		}
		if c := k.Counts(device); c != (Counts{Lost: 1}) {
			t.Errorf("%+v, want one whose socket is gone", c)
		}
		missing(failedReads)
		if e := k.Events(); len(e) > 0 {
			t.Errorf("%+v, want none: there is no process", e)
		}
		starter.Events()
	}
}

// elsewhere runs do in another network namespace.
func elsewhere(t *testing.T, do func()) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			do()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// TestNeverReady: a process that is not ready in time does not hold up the caller, and is not started twice.
func TestNeverReady(t *testing.T) {
	k, _ := newKeeper(t, "hang")
	for range 2 {
		if err := k.Start(device, time.Now()); !errors.Is(err, ErrStarting) || !k.Starting(device) {
			t.Fatalf("%v, want that it is starting", err)
		}
	}
	r := k.of(device).run
	if err := k.End(device); err != nil {
		t.Fatal(err)
	}
	<-r.done
}

// TestNone: the nil Keeper ends what others started, and does nothing else.
func TestNone(t *testing.T) {
	other, wake := newKeeper(t, "serve")
	started(t, other, wake)
	var k *Keeper
	k.Read(device, NoAnswer, time.Now())
	if k.Starting(device) || k.Counts(device) != (Counts{}) || len(k.Events()) > 0 {
		t.Error("the nil Keeper knows something")
	}
	if err := k.End(device); err != nil {
		t.Fatal(err)
	}
	if s, ok := At(device); ok {
		t.Errorf("process %+v is left", s)
	}
}

// TestKillOther: a pid that another process has by now is not killed.
func TestKillOther(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read x")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := kill(cmd.Process.Pid, device); err != nil {
		t.Error(err)
	}
	_, _ = io.WriteString(in, "\n")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, want that it runs until its context ends", err)
	}
}
