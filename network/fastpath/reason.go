package fastpath

// Reason is what became of a packet, or why. Its text is a name in snake case, for metrics.
type Reason uint32

// Of these, packets are counted. See enum reason in bpf/fastpath.c.
const (
	Sent                 = Reason(programsReasonSENT)
	SentSegments         = Reason(programsReasonSENT_SEGMENTS)
	Received             = Reason(programsReasonRECEIVED)
	ReceivedDecapsulated = Reason(programsReasonRECEIVED_DECAPSULATED)
	Stopped              = Reason(programsReasonSTOPPED)
	NotPlain             = Reason(programsReasonNOT_PLAIN)
	TTL                  = Reason(programsReasonTTL)
	TooLong              = Reason(programsReasonTOO_LONG)
	BeginEnd             = Reason(programsReasonBEGIN_END)
	Congestion           = Reason(programsReasonCONGESTION)
	Segments             = Reason(programsReasonSEGMENTS)
	Unknown              = Reason(programsReasonUNKNOWN)
	Expired              = Reason(programsReasonEXPIRED)
	Flushed              = Reason(programsReasonFLUSHED)
	OtherPort            = Reason(programsReasonOTHER_PORT)
	OtherPeer            = Reason(programsReasonOTHER_PEER)
	OtherFrame           = Reason(programsReasonOTHER_FRAME)
	NoRoom               = Reason(programsReasonNO_ROOM)

	LearnedSent              = Reason(programsReasonLEARNED_SENT)
	LearnedReceived          = Reason(programsReasonLEARNED_RECEIVED)
	NotLearnedFlush          = Reason(programsReasonNOT_LEARNED_FLUSH)
	NotLearnedPeer           = Reason(programsReasonNOT_LEARNED_PEER)
	NotLearnedConnection     = Reason(programsReasonNOT_LEARNED_CONNECTION)
	NotLearnedNotEstablished = Reason(programsReasonNOT_LEARNED_ESTABLISHED)
	NotLearnedPort           = Reason(programsReasonNOT_LEARNED_PORT)

	reasons = int(programsReasonREASONS)
)

// String is the reason's name.
func (r Reason) String() string {
	names := [reasons]string{
		Sent: "sent", SentSegments: "sent_segments",
		Received: "received", ReceivedDecapsulated: "received_decapsulated",
		Stopped: "stopped", NotPlain: "not_plain", TTL: "ttl", TooLong: "too_long", BeginEnd: "begin_end",
		Congestion: "congestion", Segments: "segments", Unknown: "unknown", Expired: "expired", Flushed: "flushed",
		OtherPort: "other_port", OtherPeer: "other_peer", OtherFrame: "other_frame", NoRoom: "no_room",
		LearnedSent: "learned_sent", LearnedReceived: "learned_received", NotLearnedFlush: "not_learned_flush",
		NotLearnedPeer: "not_learned_peer", NotLearnedConnection: "not_learned_connection",
		NotLearnedNotEstablished: "not_learned_not_established", NotLearnedPort: "not_learned_port",
	}
	if int(r) >= reasons {
		return "unknown_reason"
	}
	return names[r]
}

// Counters are packets by what became of them. They only grow while the programs' maps exist.
type Counters [reasons]uint64

// Of returns the packets of one reason.
func (c Counters) Of(r Reason) uint64 { return c[r] }
