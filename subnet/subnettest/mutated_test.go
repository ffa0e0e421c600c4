package subnettest

import "math/rand/v2"

// mutated are good records with some bytes changed, and left out if they are still good. The numbers are the same every
// time.
func (c *corpus) mutated() {
	rnd := rand.New(rand.NewPCG(5, 1))
	for n := 0; n < len(good); n += 7 {
		c.bad("46", good[:n], "not JSON")
	}
	for n := 3; n < len(good); n += 7 {
		c.bad("46", good[:n]+"\x00"+good[n+1:], "not JSON")
	}
	const key = "10.5.207.0-24&fd00:5:0:cf::-64"
	for i := range len(key) {
		for bit := range 8 {
			b := []byte(key)
			b[i] ^= 1 << bit
			c.ifBad(string(b), []byte(good))
		}
	}
	for range 300 {
		c.ifBad(c.key("46"), scramble(rnd, []byte(good)))
	}
}

// ifBad adds a record unless it is good.
func (c *corpus) ifBad(key string, value []byte) {
	if c.reason(Record{Key: key, Value: value}, c.rules, Peers()) != nil {
		c.add(key, value, "")
	}
}

// scramble changes one to three bytes, each in one of the ways in which things break.
func scramble(rnd *rand.Rand, b []byte) []byte {
	for range 1 + rnd.IntN(3) {
		i := rnd.IntN(len(b))
		switch rnd.IntN(5) {
		case 0:
			b[i] ^= 1 << rnd.IntN(8)
		case 1:
			b[i] = byte(rnd.IntN(256))
		case 2: // a piece is lost
			b = append(b[:i:i], b[min(len(b), i+1+rnd.IntN(8)):]...)
		case 3: // a piece comes twice
			b = append(b[:i:i], append([]byte(string(b[max(0, i-rnd.IntN(20)):i])), b[i:]...)...)
		case 4: // a byte comes in between
			b = append(b[:i:i], append([]byte{`{}[]",:\ 0-`[rnd.IntN(11)]}, b[i:]...)...)
		}
	}
	return b
}
