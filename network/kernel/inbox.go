package kernel

// inbox holds notifications, as they came, until they are taken into the tables. Our own changes are notified too, so that in a
// start among thousands tens of thousands wait here.
type inbox struct {
	chunks []chunk
	size   int // of all, in bytes
}

// chunk is a run of messages of which the same is known about who made the changes.
type chunk struct {
	by   string // see senders
	data []byte
}

// chunkSize is how many bytes are allocated at once: for some 600 messages.
const chunkSize = 64 << 10

// add takes in a copy of the messages of one datagram.
func (x *inbox) add(messages []byte, by string) {
	last, aligned := len(x.chunks)-1, (len(messages)+3)&^3
	if last < 0 || x.chunks[last].by != by || cap(x.chunks[last].data)-len(x.chunks[last].data) < aligned {
		size := aligned // somebody's change is alone, as a rule
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

// each calls f with every message in turn, and with who made the change.
func (x *inbox) each(f func(m message, by string)) {
	for _, c := range x.chunks {
		_ = eachMessage(c.data, func(h header, data []byte) { // what is malformed was not sent by a kernel
			f(message{typ: h.typ, flags: h.flags, data: data}, c.by)
		})
	}
}
