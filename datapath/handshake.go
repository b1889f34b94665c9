package datapath

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"hash"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/drbd"
)

// ourFeatures are the flags offered in FEATURES, the kernel's (PRO_FEATURES, drbd_receiver.c): trim and zeroes, so that
// discards reach the peer, thin resync, so that what was discarded is not sent, and write-same. That one also brings SIZES
// of 56 bytes, trims and zeroes of up to 128 MiB, and rule 41 of the comparison of UUIDs. It is received only: no front end
// yields one, DRBD 9 drops the link at one although it agrees to the flag, and the kernel has not written any since Linux 5.18.
const ourFeatures = drbd.FeatureTrim | drbd.FeatureThinResync | drbd.FeatureWSame | drbd.FeatureZeroes

// features leaves out zeroes when data carries digests: sender and receiver of a kernel disagree whether zeroes do
// (drbd_send_dblock and read_in_block), and the stream breaks.
func (c *Config) features() uint32 {
	if c.DataIntegrityAlg != "" {
		return ourFeatures &^ drbd.FeatureZeroes
	}
	return ourFeatures
}

// maxRange is the largest zeroes that is sent: the largest that a peer without FeatureWSame takes (drbd_max_discard_sectors,
// drbd_nl.c).
const maxRange = 4 << 20

const challengeLen = 64 // CHALLENGE_LEN, drbd_receiver.c

// agreement is what the two nodes agreed on before the state machine takes over.
type agreement struct {
	version  int
	features uint32
	nine     bool // the peer is a DRBD 9
}

// shake exchanges features and, if configured, proves to each other that both know the secret (drbd_do_features and
// drbd_do_auth, drbd_receiver.c). Everything goes over the data socket, within four times ping-timeout each.
func (c *Config) shake(ctx context.Context, s *sock) (agreement, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	rd := drbd.NewReader(s.r, drbd.SocketData, drbd.H80)
	_ = s.SetDeadline(time.Now().Add(4 * c.PingTimeout))
	a, err := c.shakeFeatures(s, rd)
	if err == nil && c.CRAMAlg != "" {
		rd.SetFraming(drbd.H100)
		_ = s.SetDeadline(time.Now().Add(4 * c.PingTimeout))
		err = c.shakeAuth(s, rd)
	}
	if ctx.Err() != nil {
		return a, ctx.Err()
	}
	_ = s.SetDeadline(time.Time{})
	return a, err
}

func (c *Config) shakeFeatures(s *sock, rd *drbd.Reader) (agreement, error) {
	own := drbd.Features{Min: drbd.ProtocolVersion, Max: drbd.ProtocolVersion, Flags: c.features()}
	if _, err := s.Write(drbd.AppendPacket(nil, drbd.H80, 0, drbd.CmdFeatures, own, 0)); err != nil {
		return agreement{}, asLinkError(err)
	}
	h, err := rd.Next()
	if err != nil {
		return agreement{}, asLinkError(err)
	}
	if h.Cmd != drbd.CmdFeatures {
		return agreement{}, fatalLink("%s answered with %v where its features belong", c.Peer, h.Cmd)
	}
	b, err := rd.Fixed()
	if err != nil {
		return agreement{}, asLinkError(err)
	}
	f, err := drbd.ParseFeatures(b)
	if err != nil {
		return agreement{}, asLinkError(err)
	}
	if f.Min > drbd.ProtocolVersion || f.Max < drbd.ProtocolVersion {
		return agreement{}, fatalLink("%s speaks replication protocol versions %d to %d, this node only %d: upgrade the older node",
			c.Peer, f.Min, f.Max, drbd.ProtocolVersion)
	}
	return agreement{version: drbd.ProtocolVersion, features: f.Flags & c.features(), nine: f.NodeIDs}, nil
}

func newHash(alg string) func() hash.Hash {
	switch alg {
	case "md5":
		return md5.New
	case "sha1":
		return sha1.New
	case "sha224":
		return sha256.New224
	case "sha256":
		return sha256.New
	case "sha384":
		return sha512.New384
	case "sha512":
		return sha512.New
	}
	return nil
}

func (c *Config) sign(challenge []byte) []byte {
	m := hmac.New(newHash(c.CRAMAlg), c.Secret)
	m.Write(challenge)
	return m.Sum(nil)
}

func (c *Config) shakeAuth(s *sock, rd *drbd.Reader) error {
	mine := make([]byte, challengeLen)
	_, _ = rand.Read(mine) // never fails since Go 1.24
	if err := writePacket(s, drbd.CmdAuthChallenge, mine); err != nil {
		return asLinkError(err)
	}
	theirs, err := c.authPacket(rd, drbd.CmdAuthChallenge)
	if err != nil {
		return err
	}
	if len(theirs) < challengeLen {
		return fatalLink("%s sent a challenge of %d bytes, at least %d are needed", c.Peer, len(theirs), challengeLen)
	}
	if subtle.ConstantTimeCompare(mine, theirs) == 1 {
		return fatalLink("%s sent this node's own challenge back: refused", c.Peer)
	}
	if err := writePacket(s, drbd.CmdAuthResponse, c.sign(theirs)); err != nil {
		return asLinkError(err)
	}
	answer, err := c.authPacket(rd, drbd.CmdAuthResponse)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(answer, c.sign(mine)) != 1 {
		return fatalLink("%s and %s do not have the same shared-secret (or cram-hmac-alg %s): make the configuration equal on both nodes, then connect",
			c.Node, c.Peer, c.CRAMAlg)
	}
	return nil
}

// authPacket reads a packet of the given kind; anything else means that the peer does not authenticate.
func (c *Config) authPacket(rd *drbd.Reader, want drbd.Cmd) ([]byte, error) {
	h, err := rd.Next()
	if isEOF(err) {
		return nil, brokenLink(proto.BrokenPipe, "%s hung up while the nodes authenticated each other: are cram-hmac-alg and shared-secret equal on both?", c.Peer)
	}
	if err != nil {
		return nil, asLinkError(err)
	}
	if h.Cmd != want {
		return nil, fatalLink("%s sent %v where %v belongs: does it have cram-hmac-alg %s and a shared-secret configured?",
			c.Peer, h.Cmd, want, c.CRAMAlg)
	}
	b, err := rd.Rest()
	if err != nil {
		return nil, asLinkError(err)
	}
	return append([]byte(nil), b...), nil
}

func writePacket(s *sock, cmd drbd.Cmd, payload []byte) error {
	_, err := s.Write(drbd.AppendPacket(nil, drbd.H100, 0, cmd, drbd.Bytes(payload), 0))
	return err
}
