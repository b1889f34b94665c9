package proto

// Limits on everything a peer can send over a control link, or make an agent keep.
const (
	// MaxFrame is the largest control frame, payload in bytes.
	MaxFrame = 1 << 20
	// MaxStreams is how many requests a session may have under way at once.
	MaxStreams = 64
	// MaxEvents is how many events an agent keeps and a snapshot carries.
	MaxEvents = 500
	// MaxOutputLines and MaxOutputLine bound what is kept of a program's output: lines, and bytes a line.
	MaxOutputLines = 200
	MaxOutputLine  = 512
	// MaxUsers bounds the list of processes that hold a device.
	MaxUsers = 100
	// MaxTargets bounds the mount points that one request looks at.
	MaxTargets = 1024
	// MaxOps is how many finished operations an agent remembers.
	MaxOps = 200
)
