package program

import (
	"fmt"
	"os"
	"slices"

	"golang.zx2c4.com/wireguard/device"
)

// logLimit is how many bytes of errors are kept in the file behind the standard error.
const logLimit = 64 << 10

// logger logs errors, one a line, and nothing else. The file is emptied when it is full: a peer that cannot be reached
// causes an error every few seconds, for ever. Errors about requests on the socket are left out, since they can repeat
// the line of the request, and so a key.
func logger(f *os.File) *device.Logger {
	return &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			if slices.ContainsFunc(args, isRequest) {
				return
			}
			if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > logLimit {
				_ = f.Truncate(0)
			}
			fmt.Fprintf(f, format+"\n", args...)
		},
	}
}

// isRequest reports whether a value is the error of a request on the socket.
func isRequest(v any) bool {
	_, is := v.(*device.IPCError)
	return is
}
