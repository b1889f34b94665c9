package session

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/santui/proto"
)

// The files of an identity, in its folder.
const (
	keyFile  = "peer.key" // PEM, PKCS #8, mode 0600
	certFile = "peer.crt" // PEM, self-signed
)

// alpn keeps a peer session from being mistaken for another service that uses TLS.
const alpn = "santui-peer"

// Identity is an agent's key pair for peer sessions. The certificate around it is only a container: nobody but the two
// nodes of a pair trusts it, and both do so by the fingerprint of its key.
type Identity struct {
	cert        tls.Certificate
	Fingerprint string // see Fingerprint
}

// Fingerprint names a certificate's public key: "SHA256:" and the unpadded base64 of the SHA-256 of its DER
// SubjectPublicKeyInfo.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// GenerateIdentity makes an Ed25519 key and a self-signed certificate in dir, which it creates with mode 0700. An
// identity that is there already is not overwritten: the error then matches fs.ErrExist.
func GenerateIdentity(dir string) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a peer identity: %w", err)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a peer identity: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("making a peer identity: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "santui peer"},
		// The pin is the trust; a date would only break a pair one day.
		NotBefore:   time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:    time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: no expiry
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, priv)
	if err != nil {
		return nil, fmt.Errorf("making a peer identity: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("making a peer identity: %w", err)
	}
	if err := writeNew(filepath.Join(dir, keyFile), 0o600, "PRIVATE KEY", key); err != nil {
		return nil, err
	}
	if err := writeNew(filepath.Join(dir, certFile), 0o644, "CERTIFICATE", der); err != nil {
		return nil, errors.Join(err, os.Remove(filepath.Join(dir, keyFile)))
	}
	return LoadIdentity(dir)
}

// writeNew writes a PEM file that does not exist yet, and syncs it.
func writeNew(path string, mode fs.FileMode, kind string, der []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("writing a peer identity: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing a peer identity: %w", err), os.Remove(path))
	}
	return nil
}

// LoadIdentity reads what GenerateIdentity wrote. It refuses a key that others may read.
func LoadIdentity(dir string) (*Identity, error) {
	path := filepath.Join(dir, keyFile)
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading this node's peer identity: %w", err)
	}
	if !privateMode(st.Mode()) {
		return nil, proto.Errorf(proto.CodeDenied, "the private key %s has mode %04o: others may read it", path, st.Mode().Perm()).
			WithRemedy("chmod 600 %s; if others had access, make a new key and pair again", path)
	}
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), path)
	if err != nil {
		return nil, fmt.Errorf("reading this node's peer identity in %s: %w", dir, err)
	}
	if cert.Leaf == nil {
		return nil, fmt.Errorf("reading this node's peer identity in %s: no certificate", dir)
	}
	if _, ok := cert.Leaf.PublicKey.(ed25519.PublicKey); !ok {
		return nil, fmt.Errorf("%s holds a %s key; peer sessions use Ed25519", path, cert.Leaf.PublicKeyAlgorithm)
	}
	return &Identity{cert: cert, Fingerprint: Fingerprint(cert.Leaf)}, nil
}

// PinError says that the other side's key is not the pinned one.
type PinError struct {
	Seen     string   // fingerprint of the key that the other side proved to hold
	Expected []string // the pinned ones
}

func (e *PinError) Error() string {
	want := "no key is pinned here"
	if len(e.Expected) > 0 {
		want = "pinned is " + strings.Join(e.Expected, " or ")
	}
	return fmt.Sprintf("the other agent's key is %s, %s", e.Seen, want)
}

// Unwrap gives it a code and a remedy.
func (e *PinError) Unwrap() error {
	return proto.Errorf(proto.CodeDenied, "%s", e.Error()).WithRemedy(
		"if the other node was reinstalled, compare the fingerprint on its own console and pin the new one; if not, somebody else answers at its address")
}

// ServerConfig is the TLS of an agent that is dialled: it accepts only the pinned keys. It returns a *PinError from the
// handshake for any other.
func ServerConfig(id *Identity, pins []string) *tls.Config {
	c := peerConfig(id, pins)
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// ClientConfig is the TLS of an agent that dials: it accepts only the pinned key.
func ClientConfig(id *Identity, pin string) *tls.Config {
	c := peerConfig(id, []string{pin})
	// Not the authority and the name in a certificate are checked, but the key itself, by VerifyConnection.
	c.InsecureSkipVerify = true
	return c
}

func peerConfig(id *Identity, pins []string) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{id.cert},
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true,
		VerifyConnection:       func(cs tls.ConnectionState) error { return checkPin(cs, pins) },
	}
}

func checkPin(cs tls.ConnectionState, pins []string) error {
	if len(cs.PeerCertificates) == 0 {
		return proto.Errorf(proto.CodeDenied, "the other side shows no certificate")
	}
	seen := Fingerprint(cs.PeerCertificates[0])
	for _, p := range pins {
		if subtle.ConstantTimeCompare([]byte(p), []byte(seen)) == 1 {
			return nil
		}
	}
	return &PinError{Seen: seen, Expected: pins}
}

// DialPeer connects to the other agent at addr (host:port) and proves both keys.
func DialPeer(ctx context.Context, addr string, id *Identity, pin string) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 15 * time.Second}
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, proto.Errorf(proto.CodeUnreachable, "cannot connect to the other agent at %s: %v", addr, rootCause(err)).
			WithRemedy("is santui-agent running there, and does the network let the port through?")
	}
	conn := tls.Client(raw, ClientConfig(id, pin))
	hctx, cancel := context.WithTimeout(ctx, DefaultPrologueTimeout)
	defer cancel()
	if err := conn.HandshakeContext(hctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("connecting to the other agent at %s: %w", addr, explainTLS(err))
	}
	return conn, nil
}
