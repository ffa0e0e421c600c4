package main

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestKeyboard(t *testing.T) {
	k := newKeyboard()
	in, typed := io.Pipe()
	listened := make(chan struct{})
	go func() { k.listen(in); close(listened) }()
	read := func(want string) {
		t.Helper()
		buffer := make([]byte, 256)
		if n, err := k.Read(buffer); string(buffer[:n]) != want || err != nil {
			t.Errorf("read %q, %v, want %q", buffer[:n], err, want)
		}
	}
	// One line at a time: the next belongs to what the first starts.
	typed.Write([]byte("exec node1 bash\rexit\rnodes\r"))
	read("exec node1 bash\r")
	var program bytes.Buffer
	k.give(&program)
	typed.Write([]byte("more\r"))
	typed.Write(nil) // the write before has been taken
	k.give(nil)
	if program.String() != "exit\rnodes\rmore\r" {
		t.Errorf("the program read %q", &program)
	}
	// Ctrl-C clears the line, or ends the command that runs, and what was typed ahead for it.
	typed.Write([]byte("ab\x03c\r"))
	read("ab")
	read("\x05\x15")
	read("c\r")
	interrupted := 0
	k.onInterrupt(func() { interrupted++ })
	typed.Write([]byte("ahead\x03after\r"))
	typed.Write(nil)
	k.onInterrupt(nil)
	read("after\r")
	if interrupted != 1 {
		t.Errorf("%d interrupts, want 1", interrupted)
	}
	// Ctrl-C right after a command's line, before the command has begun.
	typed.Write([]byte("stream\r\x03next\r"))
	typed.Write(nil)
	read("stream\r")
	k.onInterrupt(func() { interrupted++ })
	k.onInterrupt(nil)
	read("next\r")
	if interrupted != 2 {
		t.Errorf("%d interrupts, want 2", interrupted)
	}
	typed.Close()
	<-listened
	if n, err := k.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v at the end", n, err)
	}
}

// slowProgram reads its first keys only once something else is typed.
type slowProgram struct {
	bytes.Buffer
	begun atomic.Bool
	slow  func()
}

func (p *slowProgram) Write(keys []byte) (int, error) {
	if p.begun.CompareAndSwap(false, true) {
		p.slow()
	}
	return p.Buffer.Write(keys)
}

// TestTypedAhead: a program gets what was typed before its start before what is typed after.
func TestTypedAhead(t *testing.T) {
	k := newKeyboard()
	k.take([]byte("ahead"))
	var typing sync.WaitGroup
	program := new(slowProgram)
	program.slow = func() {
		typing.Go(func() { k.take([]byte("later")) })
		time.Sleep(10 * time.Millisecond) // time for a keyboard that mixes them up to do so
	}
	k.give(program)
	typing.Wait()
	if got := program.String(); got != "aheadlater" {
		t.Errorf("the program read %q", got)
	}
}

func TestHistory(t *testing.T) {
	var h history
	for _, line := range []string{"a", "", "b", "b", " "} {
		h.Add(line)
	}
	if h.Len() != 2 || h.At(0) != "b" || h.At(1) != "a" {
		t.Errorf("history %q", h.lines)
	}
}

func TestInColumns(t *testing.T) {
	if got, want := inColumns([]string{"a", "bbb", "c"}, 12), "a    c\nbbb\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
