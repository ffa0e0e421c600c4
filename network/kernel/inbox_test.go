package kernel

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInbox: what is added comes out in the order in which it came, as it was, and with who did it.
func TestInbox(t *testing.T) {
	var x inbox
	var want []string
	buffer := make([]byte, 0, receiveSize) // one for all datagrams, as for a socket
	for i := range 2000 {
		by := ""
		if i%100 < 3 {
			by = fmt.Sprintf("pid %d", i/50)
		}
		buffer = buffer[:0]
		for n := range 1 + i%3 { // a datagram can hold several, and its last one need not end at a multiple of four
			data := bytes.Repeat([]byte{byte(i)}, i%70)
			want = append(want, fmt.Sprintf("%d %x %q", unix.RTM_NEWROUTE+n, data, by))
			buffer = buffer[:(len(buffer)+3)&^3]
			buffer = append(buffer, notification(uint16(unix.RTM_NEWROUTE+n), data)...)
		}
		x.add(buffer, by)
	}
	var got []string
	x.each(func(m message, by string) { got = append(got, fmt.Sprintf("%d %x %q", m.typ, m.data, by)) })
	if !slices.Equal(got, want) {
		t.Errorf("%d messages, not the %d that were added: %.300q, want %.300q", len(got), len(want), got, want)
	}
}
