//go:build lab

package lab

import (
	"context"

	"example.com/santui/proto/session"
)

// cockpit opens a session to a node's agent, as the cockpit does. The caller closes it.
func (l *Lab) cockpit(ctx context.Context, n *Node) (*session.Session, error) {
	conn, err := session.DialSSH(ctx, n.Name(), "-F", l.SSHConfig())
	if err != nil {
		return nil, err
	}
	return session.Client(ctx, conn, session.Options{Node: "test", Version: "test", Kind: session.KindCockpit})
}
