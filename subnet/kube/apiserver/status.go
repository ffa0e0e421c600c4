package apiserver

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	maxStatus     = 64 << 10         // of the body of an error
	maxText       = 1 << 10          // of what is passed on of its message
	maxRetryAfter = 10 * time.Minute // of what a server may ask for
)

// status is the part that is used of a meta/v1 Status.
type status struct {
	code       int
	reason     string // such as "Expired"
	message    string
	tooLarge   bool // cause ResourceVersionTooLarge
	retryAfter time.Duration
}

// tooLargeCause is metav1.CauseTypeResourceVersionTooLarge.
const tooLargeCause = "ResourceVersionTooLarge"

// readStatus decodes the body of an error: a Status in protobuf or JSON, or any text of what stands before the server.
func readStatus(header http.Header, body []byte) (s status) {
	switch {
	case bytes.HasPrefix(body, []byte(magic)):
		if _, raw, err := unknown(body, false); err == nil {
			s.decode(raw)
		}
	case bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")):
		s.decodeJSON(body)
	}
	if s.message == "" {
		s.message = strings.TrimSpace(string(body))
	}
	s.message = shorten(s.message)
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err == nil && seconds > 0 {
		s.retryAfter = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	}
	return s
}

// decode decodes a Status. What is malformed is left out.
func (s *status) decode(m message) {
	_ = m.each(func(f field) error {
		switch f.number {
		case statusMessage:
			s.message = string(f.bytes.rest)
		case statusReason:
			s.reason, _ = f.bytes.text("reason", maxName)
		case statusDetails:
			s.details(f.bytes)
		case statusCode:
			s.code = int(int32(f.num))
		}
		return nil
	})
	s.message = shorten(s.message)
}

// details decodes a StatusDetails.
func (s *status) details(m message) {
	_ = m.each(func(f field) error {
		switch f.number {
		case detailsCauses:
			_ = f.bytes.each(func(f field) error {
				s.tooLarge = s.tooLarge || f.number == causeReason && string(f.bytes.rest) == tooLargeCause
				return nil
			})
		case detailsRetryAfter:
			s.retryAfter = time.Duration(min(max(int32(f.num), 0), int32(maxRetryAfter/time.Second))) * time.Second
		}
		return nil
	})
}

func (s *status) decodeJSON(body []byte) {
	var j struct {
		Message string
		Reason  string
		Code    int
		Details struct {
			Causes []struct{ Reason string }
		}
	}
	if json.Unmarshal(body, &j) != nil {
		return
	}
	s.message, s.reason, s.code = j.Message, j.Reason, j.Code
	for _, c := range j.Details.Causes {
		s.tooLarge = s.tooLarge || c.Reason == tooLargeCause
	}
}

// shorten returns text that can be logged: on one line, printable, and of bounded length.
func shorten(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	return strings.Join(strings.Fields(text), " ")
}
