package main

import (
	"bytes"
	"io"
	"sync"
)

// Control characters as a terminal in raw mode sends them.
const (
	ctrlC     = 3
	toEnd     = 5  // Ctrl-E of the line editor: to the end of the line
	deleteAll = 21 // Ctrl-U: delete what is before the cursor
)

// keyboard is the only reader of the prompt's terminal, so that no two readers take each other's keys. What is typed
// goes to the program that has the terminal, if one has it, else to the line editor. Keys that are typed while a
// command runs are buffered for the next line.
type keyboard struct {
	mu        sync.Mutex
	more      sync.Cond
	typed     []byte
	err       error     // the terminal is gone
	program   io.Writer // has the terminal; nil: the prompt has it
	interrupt func()    // is called for Ctrl-C while a command runs; nil: no command runs
}

func newKeyboard() *keyboard {
	k := new(keyboard)
	k.more.L = &k.mu
	return k
}

// listen reads the terminal until it is gone.
func (k *keyboard) listen(terminal io.Reader) {
	keys := make([]byte, 256)
	for {
		n, err := terminal.Read(keys)
		if n > 0 {
			k.take(keys[:n])
		}
		if err != nil {
			k.mu.Lock()
			k.err = err
			k.more.Broadcast()
			k.mu.Unlock()
			return
		}
	}
}

func (k *keyboard) take(keys []byte) {
	k.mu.Lock()
	program := k.program
	if program == nil {
		if i := bytes.LastIndexByte(keys, ctrlC); i >= 0 && k.interrupt != nil {
			k.interrupt()
			k.typed, keys = nil, keys[i+1:]
		}
		k.typed = append(k.typed, keys...)
		k.more.Broadcast()
	}
	k.mu.Unlock()
	if program != nil {
		program.Write(keys) // fails only if the program has ended
	}
}

// Read gives the line editor at most the rest of one line, so that the lines that follow are left to the program that
// this line starts. Ctrl-C clears the line.
func (k *keyboard) Read(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.typed) == 0 {
		if k.err != nil {
			return 0, k.err
		}
		k.more.Wait()
	}
	if k.typed[0] == ctrlC {
		k.typed = k.typed[1:]
		return copy(p, []byte{toEnd, deleteAll}), nil
	}
	n := len(k.typed)
	if i := bytes.IndexByte(k.typed, ctrlC); i >= 0 {
		n = i
	}
	if i := bytes.IndexAny(k.typed[:n], "\r\n"); i >= 0 {
		n = i + 1
	}
	n = copy(p, k.typed[:n])
	k.typed = k.typed[n:]
	return n, nil
}

// onInterrupt has Ctrl-C call fn, also one that was typed after the command's line and before now; nil ends that.
func (k *keyboard) onInterrupt(fn func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.interrupt = fn
	if i := bytes.LastIndexByte(k.typed, ctrlC); i >= 0 && fn != nil {
		k.typed = k.typed[i+1:]
		fn()
	}
}

// give gives the terminal to a program, with the keys that were typed ahead; nil takes it back.
func (k *keyboard) give(program io.Writer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if program != nil && len(k.typed) > 0 {
		program.Write(k.typed) // with the lock held, so that later keys follow; fails only if the program has ended
		k.typed = nil
	}
	k.program = program
}
