// Package layout decides what goes where: pure functions from the window's size to rectangles, which tile the window
// exactly. It knows nothing of what is drawn. Tested by drawings.
package layout
