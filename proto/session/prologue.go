package session

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"example.com/santui/proto"
)

// magic begins every session, in both directions.
const magic = "SANTUI"

// The protocol versions that this build speaks.
const (
	VersionMin = 1
	VersionMax = 1
)

// maxHello bounds the JSON of a prologue, maxName the names in it; bytes.
const (
	maxHello = 4096
	maxName  = 255
)

// Kind says what a caller is.
type Kind string

// The kinds of caller.
const (
	KindCockpit Kind = "cockpit" // a cockpit or a command line
	KindPeer    Kind = "peer"    // the other agent of the pair
	KindAgent   Kind = "agent"   // how an agent names itself to a cockpit
)

// Hello is what one side says about itself.
type Hello struct {
	Node    string `json:"node"`    // node name, or user@host of a cockpit
	Version string `json:"version"` // of the program
	Kind    Kind   `json:"kind"`
	// Proto is the protocol version that both sides agreed on; it does not travel.
	Proto int `json:"-"`
}

// deadlined is what nearly every connection can do.
type deadlined interface{ SetDeadline(time.Time) error }

// handshaker is a *tls.Conn.
type handshaker interface{ HandshakeContext(context.Context) error }

// callerPrologue sends our hello and reads the answer.
func callerPrologue(conn io.ReadWriter, o Options) (Hello, error) {
	h, err := json.Marshal(Hello{Node: o.Node, Version: o.Version, Kind: o.Kind})
	if err != nil {
		return Hello{}, err
	}
	if len(h) > maxHello {
		return Hello{}, proto.Errorf(proto.CodeInvalid, "node name and version take %d bytes, the limit is %d", len(h), maxHello)
	}
	b := append([]byte(magic), 0, VersionMin, 0, VersionMax)
	b = binary.BigEndian.AppendUint16(b, uint16(len(h)))
	if _, err := conn.Write(append(b, h...)); err != nil {
		return Hello{}, fmt.Errorf("sending the prologue: %w", explainTLS(err))
	}
	var head [11]byte // magic, u8 status, u16 version, u16 length
	if n, err := io.ReadFull(conn, head[:]); err != nil {
		if n > 0 && !strings.HasPrefix(magic, string(head[:min(n, len(magic))])) {
			return Hello{}, notSantui(head[:n])
		}
		return Hello{}, fmt.Errorf("waiting for the agent's prologue: %w", explainTLS(err))
	}
	if string(head[:6]) != magic {
		return Hello{}, notSantui(head[:])
	}
	body, err := readHello(conn, binary.BigEndian.Uint16(head[9:]))
	if err != nil {
		return Hello{}, err
	}
	switch head[6] {
	case statusOK:
	case statusRefused:
		var pe proto.Error
		if err := json.Unmarshal(body, &pe); err != nil || pe.Code == "" {
			return Hello{}, proto.Errorf(proto.CodeDenied, "the agent refuses this session and gives no reason that can be read")
		}
		return Hello{}, &pe
	default:
		return Hello{}, proto.Errorf(proto.CodeInvalid, "the agent's prologue has the unknown status %d", head[6])
	}
	peer, err := parseHello(body)
	if err != nil {
		return Hello{}, err
	}
	peer.Proto = int(binary.BigEndian.Uint16(head[7:]))
	if peer.Proto < VersionMin || peer.Proto > VersionMax {
		return Hello{}, proto.Errorf(proto.CodeVersion, "agent %s chose protocol version %d, which was not offered", peer.Node, peer.Proto)
	}
	return peer, nil
}

// The status byte of the answer.
const (
	statusOK      = 0
	statusRefused = 1
)

// serverPrologue reads the caller's hello and answers it: with our hello, or with the reason why not.
func serverPrologue(conn io.ReadWriter, o Options) (Hello, error) {
	var head [12]byte // magic, u16 min, u16 max, u16 length
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return Hello{}, fmt.Errorf("waiting for the caller's prologue: %w", explainTLS(err))
	}
	if string(head[:6]) != magic { // no answer: whatever it is, it is not one of ours
		return Hello{}, proto.Errorf(proto.CodeInvalid, "the caller sent %q, not a santui prologue", head[:6])
	}
	lo, hi := binary.BigEndian.Uint16(head[6:]), binary.BigEndian.Uint16(head[8:])
	body, err := readHello(conn, binary.BigEndian.Uint16(head[10:]))
	if err != nil {
		return Hello{}, refuse(conn, o, err)
	}
	if lo > VersionMax || hi < VersionMin || lo > hi {
		return Hello{}, refuse(conn, o, proto.Errorf(proto.CodeVersion,
			"agent %s (version %s) speaks protocol versions %d to %d, the caller %d to %d", nodeName(o.Node), o.Version, VersionMin, VersionMax, lo, hi).
			WithRemedy("install the same santui version on both sides"))
	}
	peer, err := parseHello(body)
	if err != nil {
		return Hello{}, refuse(conn, o, err)
	}
	peer.Proto = min(int(hi), VersionMax)
	if o.Admit != nil {
		if err := o.Admit(peer); err != nil {
			return Hello{}, refuse(conn, o, err)
		}
	}
	h, err := json.Marshal(Hello{Node: o.Node, Version: o.Version, Kind: o.Kind})
	if err != nil {
		return Hello{}, err
	}
	if err := answer(conn, statusOK, peer.Proto, h); err != nil {
		return Hello{}, fmt.Errorf("answering the prologue of %s: %w", nodeName(peer.Node), err)
	}
	return peer, nil
}

// refuse sends the reason and returns it. The caller may be gone; the reason is what counts here.
func refuse(conn io.Writer, o Options, reason error) error {
	pe, _ := toWire(reason, "prologue", o.Node)
	b, err := json.Marshal(pe)
	if err != nil || len(b) > maxHello {
		b, _ = json.Marshal(proto.Errorf(pe.Code, "the agent refuses this session").On(o.Node))
	}
	if err := answer(conn, statusRefused, 0, b); err != nil {
		return errors.Join(reason, err)
	}
	return reason
}

func answer(w io.Writer, status byte, version int, body []byte) error {
	if len(body) > maxHello {
		return proto.Errorf(proto.CodeLimit, "a prologue of %d bytes, the limit is %d", len(body), maxHello)
	}
	b := append([]byte(magic), status)
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

func readHello(r io.Reader, n uint16) ([]byte, error) {
	if n > maxHello {
		// Read it all the same: closing a TCP connection with unread bytes would destroy the refusal on its way.
		_, _ = io.CopyN(io.Discard, r, int64(n))
		return nil, proto.Errorf(proto.CodeLimit, "a prologue of %d bytes was announced, the limit is %d", n, maxHello)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("reading the prologue: %w", err)
	}
	return b, nil
}

func parseHello(b []byte) (Hello, error) {
	var h Hello
	if err := json.Unmarshal(b, &h); err != nil {
		return Hello{}, proto.Errorf(proto.CodeInvalid, "the prologue's text is not valid JSON")
	}
	for _, s := range []string{h.Node, h.Version, string(h.Kind)} {
		if len(s) > maxName {
			return Hello{}, proto.Errorf(proto.CodeLimit, "a name in the prologue is %d bytes long, the limit is %d", len(s), maxName)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return Hello{}, proto.Errorf(proto.CodeInvalid, "a name in the prologue contains control characters")
		}
	}
	switch h.Kind {
	case KindCockpit, KindPeer, KindAgent:
		return h, nil
	default:
		return Hello{}, proto.Errorf(proto.CodeInvalid, "the prologue names the unknown kind %q", h.Kind)
	}
}

// notSantui explains an answer that is not ours: over ssh that is nearly always a login script that prints.
func notSantui(b []byte) error {
	return proto.Errorf(proto.CodeUnreachable, "the other side is not a santui agent: it answered %q", b).
		WithRemedy("over ssh: make sure that no login script (.bashrc, .profile) prints anything, and that santui-agent is installed there")
}

// explainTLS says what a TLS alert from the other side means here: in TLS 1.3 the side that dials learns only from its
// first read that its certificate was refused.
func explainTLS(err error) error {
	var oe *net.OpError
	if errors.As(err, &oe) && oe.Op == "remote error" {
		return fmt.Errorf("%w (the other agent refuses this node's key: compare the fingerprints that the two nodes have pinned)", err)
	}
	return err
}

// runPrologue gives p at most o.PrologueTimeout, and closes conn when that passes, ctx ends or p fails.
func runPrologue(ctx context.Context, conn io.ReadWriteCloser, o Options, p func(io.ReadWriter, Options) (Hello, error)) (Hello, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, o.PrologueTimeout, errPrologueTimeout)
	defer cancel()
	if d, ok := conn.(deadlined); ok {
		// Also for connections whose Close does not interrupt a Read. One that cannot is closed below.
		if err := d.SetDeadline(time.Now().Add(o.PrologueTimeout)); err == nil {
			defer func() { _ = d.SetDeadline(time.Time{}) }()
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	peer, err := func() (Hello, error) {
		if t, ok := conn.(handshaker); ok {
			if err := t.HandshakeContext(ctx); err != nil {
				return Hello{}, explainTLS(err)
			}
		}
		return p(conn, o)
	}()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		return peer, nil
	}
	_ = conn.Close()
	var ne net.Error
	if ctx.Err() != nil || errors.As(err, &ne) && ne.Timeout() {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errPrologueTimeout) {
			return Hello{}, fmt.Errorf("opening a session: %w", cause)
		}
		return Hello{}, proto.Errorf(proto.CodeUnreachable, "no santui prologue arrived within %s", o.PrologueTimeout).
			WithRemedy("is santui-agent running on the other side, and is it not stopped or overloaded?")
	}
	return Hello{}, opening(err)
}

var errPrologueTimeout = errors.New("prologue timeout")

// opening gives every failure to open a session a code.
func opening(err error) error {
	var pe *proto.Error
	if errors.As(err, &pe) {
		return err
	}
	return &unreachableError{err}
}

// unreachableError matches proto.CodeUnreachable and keeps its cause.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return "opening a session: " + e.err.Error() }

func (e *unreachableError) Unwrap() []error {
	return []error{e.err, &proto.Error{Code: proto.CodeUnreachable, Text: e.Error()}}
}
