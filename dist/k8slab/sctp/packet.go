package sctp

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Types of chunks, RFC 9260 section 3.2.
const (
	typeData             = 0
	typeInit             = 1
	typeInitAck          = 2
	typeSack             = 3
	typeAbort            = 6
	typeShutdown         = 7
	typeShutdownAck      = 8
	typeCookieEcho       = 10
	typeCookieAck        = 11
	typeShutdownComplete = 14
)

const (
	headerLength = 12 // the common header
	chunkHeader  = 4
	initLength   = 16 // the fixed part of INIT and INIT ACK
	dataHeader   = 12 // of DATA, before the user's data

	wholeMessage = 3    // the flags B and E of DATA: the first and the last fragment
	cookieParam  = 7    // the parameter State Cookie of INIT ACK
	window       = 1500 // octets; RFC 9260 section 3.3.2 forbids less
)

// packet is an SCTP packet with one chunk.
type packet struct {
	from, to uint16 // ports
	tag      uint32
	kind     uint8
	flags    uint8
	value    []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// marshal encodes a packet, with its checksum (RFC 9260 appendix A: CRC32c, in the order of reflected octets).
func (p packet) marshal() []byte {
	length := chunkHeader + len(p.value)
	b := make([]byte, headerLength+(length+3)/4*4)
	binary.BigEndian.PutUint16(b[0:], p.from)
	binary.BigEndian.PutUint16(b[2:], p.to)
	binary.BigEndian.PutUint32(b[4:], p.tag)
	b[headerLength], b[headerLength+1] = p.kind, p.flags
	binary.BigEndian.PutUint16(b[headerLength+2:], uint16(length))
	copy(b[headerLength+chunkHeader:], p.value)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

var errMalformed = errors.New("malformed SCTP packet")

// parse decodes a packet. It ignores all chunks after the first.
func parse(b []byte) (p packet, err error) {
	if len(b) < headerLength+chunkHeader {
		return p, errMalformed
	}
	b = append([]byte(nil), b...)
	sum := binary.LittleEndian.Uint32(b[8:])
	clear(b[8:12])
	length := int(binary.BigEndian.Uint16(b[headerLength+2:]))
	if crc32.Checksum(b, castagnoli) != sum || length < chunkHeader || headerLength+length > len(b) {
		return p, errMalformed
	}
	return packet{
		from: binary.BigEndian.Uint16(b[0:]), to: binary.BigEndian.Uint16(b[2:]), tag: binary.BigEndian.Uint32(b[4:]),
		kind: b[headerLength], flags: b[headerLength+1], value: b[headerLength+chunkHeader : headerLength+length],
	}, nil
}

// start is what INIT and INIT ACK say of their sender.
type start struct {
	tag, tsn uint32
	cookie   []byte // INIT ACK only
}

func (s start) marshal() []byte {
	b := make([]byte, initLength)
	binary.BigEndian.PutUint32(b[0:], s.tag)
	binary.BigEndian.PutUint32(b[4:], window)
	binary.BigEndian.PutUint16(b[8:], 1)  // outbound streams
	binary.BigEndian.PutUint16(b[10:], 1) // inbound streams
	binary.BigEndian.PutUint32(b[12:], s.tsn)
	if s.cookie != nil {
		b = binary.BigEndian.AppendUint16(b, cookieParam)
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(s.cookie)))
		b = append(b, s.cookie...)
	}
	return b
}

func parseStart(b []byte) (s start, err error) {
	if len(b) < initLength {
		return s, errMalformed
	}
	s.tag, s.tsn = binary.BigEndian.Uint32(b[0:]), binary.BigEndian.Uint32(b[12:])
	for b = b[initLength:]; len(b) >= 4; {
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 || length > len(b) {
			return s, errMalformed
		}
		if binary.BigEndian.Uint16(b) == cookieParam {
			s.cookie = b[4:length]
		}
		b = b[min(len(b), (length+3)/4*4):]
	}
	return s, nil
}
