package sandbox

import (
	"errors"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// errGone is what Do returns if the function ended its goroutine instead of returning.
var errGone = errors.New("the function did not return: testing.T.Fatal and runtime.Goexit must not be called inside Do")

// onThread calls fn on an operating system thread of its own, which fn may move to other namespaces. The thread is never
// unlocked: the Go runtime ends it with the goroutine, so that no other goroutine ever runs in those namespaces.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The main thread cannot end. It would stay in those namespaces, keep them alive, and /proc/self would show
			// them. While it is locked here, the next goroutine gets another one.
			defer runtime.UnlockOSThread()
			done <- onThread(fn)
			return
		}
		err := errGone
		defer func() { done <- err }()
		err = fn()
	}()
	return <-done
}
