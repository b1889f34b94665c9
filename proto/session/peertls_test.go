package session_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/santui/proto"
	"example.com/santui/proto/session"
)

func identity(t *testing.T) *session.Identity {
	t.Helper()
	id, err := session.GenerateIdentity(filepath.Join(t.TempDir(), "id"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// peerListener serves peer sessions until the test ends, and reports how each ended.
func peerListener(t *testing.T, id *session.Identity, pins []string) (addr string, ended <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 10)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			o := agentOptions
			o.Kind = session.KindPeer
			done <- session.Serve(context.Background(), tls.Server(c, session.ServerConfig(id, pins)), o, nil)
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-stopped })
	return ln.Addr().String(), done
}

func TestPeerTLS(t *testing.T) {
	otter, weasel, stranger := identity(t), identity(t), identity(t)
	addr, ended := peerListener(t, otter, []string{weasel.Fingerprint})
	o := session.Options{Node: "weasel", Kind: session.KindPeer}

	conn, err := session.DialPeer(t.Context(), addr, weasel, otter.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.Client(t.Context(), conn, o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Peer().Node != "otter" {
		t.Errorf("peer %+v", s.Peer())
	}
	_, _ = s.Close(), s.Wait()
	if err := <-ended; err != nil {
		t.Errorf("the serving side: %v", err)
	}

	t.Run("the dialler does not know the key", func(t *testing.T) {
		_, err := session.DialPeer(t.Context(), addr, weasel, stranger.Fingerprint)
		var pe *session.PinError
		if !errors.As(err, &pe) || pe.Seen != otter.Fingerprint || len(pe.Expected) != 1 || pe.Expected[0] != stranger.Fingerprint {
			t.Fatalf("got %v, want a PinError", err)
		}
		if session.Code(err) != proto.CodeDenied || !strings.Contains(err.Error(), otter.Fingerprint) || !strings.Contains(err.Error(), stranger.Fingerprint) {
			t.Errorf("the error: %v", err)
		}
		<-ended
	})
	t.Run("the listener does not know the key", func(t *testing.T) {
		conn, err := session.DialPeer(t.Context(), addr, stranger, otter.Fingerprint)
		if err == nil { // TLS 1.3: the dialler is through before the listener has looked at its key
			_, err = session.Client(t.Context(), conn, o)
		}
		if err == nil || !strings.Contains(err.Error(), "refuses this node's key") {
			t.Errorf("the dialler: %v", err)
		}
		var pe *session.PinError
		if err := <-ended; !errors.As(err, &pe) || pe.Seen != stranger.Fingerprint || session.Code(err) != proto.CodeDenied {
			t.Errorf("the listener: %v", err)
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(2 * time.Second))
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if err == nil {
			t.Error("a caller without a certificate was let in")
		}
		if err := <-ended; err == nil {
			t.Error("the listener accepted it")
		}
	})
	t.Run("plain TCP", func(t *testing.T) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(hello(1, 1, goodHello))
		if err := <-ended; session.Code(err) != proto.CodeUnreachable {
			t.Errorf("the listener: %v", err)
		}
		_ = c.Close()
	})
	t.Run("nobody listens", func(t *testing.T) {
		if _, err := session.DialPeer(t.Context(), "127.0.0.1:1", weasel, otter.Fingerprint); session.Code(err) != proto.CodeUnreachable {
			t.Error(err)
		}
	})
}

func TestIdentityFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "id")
	if _, err := session.LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none there: %v", err)
	}
	id, err := session.GenerateIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(id.Fingerprint, "SHA256:") || len(id.Fingerprint) != 7+43 {
		t.Errorf("fingerprint %q", id.Fingerprint)
	}
	key := filepath.Join(dir, "peer.key")
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", st.Mode(), err)
	}
	if _, err := session.GenerateIdentity(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	again, err := session.LoadIdentity(dir)
	if err != nil || again.Fingerprint != id.Fingerprint {
		t.Errorf("loaded %v, %v", again, err)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := session.LoadIdentity(dir); session.Code(err) != proto.CodeDenied || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := session.LoadIdentity(dir); err == nil {
		t.Error("a damaged key was accepted")
	}
}
