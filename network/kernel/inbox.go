package kernel

// inbox queues notifications in the order of their arrival. The kernel notifies of our own changes too: a start among
// thousands of leases queues tens of thousands.
type inbox struct {
	chunks []chunk
	size   int // of all, in bytes
}

// chunk is a run of messages with the same sender.
type chunk struct {
	by   string // the sender, see senders
	data []byte
}

// chunkSize is how many bytes are allocated at once, for some 600 messages.
const chunkSize = 64 << 10

// add queues a copy of the messages of one datagram.
func (x *inbox) add(messages []byte, by string) {
	last, aligned := len(x.chunks)-1, (len(messages)+3)&^3
	if last < 0 || x.chunks[last].by != by || cap(x.chunks[last].data)-len(x.chunks[last].data) < aligned {
		size := aligned // another process's change is usually alone
		if by == "" && last >= 0 {
			size = max(size, chunkSize)
		}
		x.chunks = append(x.chunks, chunk{by, make([]byte, 0, size)})
		last++
	}
	data := append(x.chunks[last].data, messages...)
	x.chunks[last].data = append(data, "\x00\x00\x00"[:aligned-len(messages)]...)
	x.size += len(messages)
}

// each calls f with every message in order, and with its sender.
func (x *inbox) each(f func(m message, by string)) {
	for _, c := range x.chunks {
		_ = eachMessage(c.data, func(h header, data []byte) { // a kernel sends no malformed messages
			f(message{typ: h.typ, flags: h.flags, data: data}, c.by)
		})
	}
}
