// Package engine puts one face on what replicates a resource. Native is santui's own engine with a front end that makes
// it a block device; the kernel's DRBD module becomes a second implementation of Engine later.
//
// State: a Native owns its datapath.Resource and, while the node is Primary, the export on it. Promote and Demote are
// serialised by a mutex because each changes both. One goroutine, started with an export and ended with it, watches
// whether the front end dies by itself. Handlers has no state; it runs in the goroutines of the resource.
package engine
