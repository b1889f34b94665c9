// Package screen draws whole screens from a Ctx: the overview, a node, the synchronisation, events, commands, the
// doctor, help, and the frame that the wizard's pages use. Every function is pure and returns exactly Ctx.H lines of at most
// Ctx.W cells for any size from one cell up. What is too small for panels gets one block of text.
package screen
