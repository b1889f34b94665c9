// Package svg draws a screen of coloured text lines as a picture. Boxes and bars are drawn as shapes, so they join
// whatever font shows the text; each run of text is stretched to its cells. Pure.
package svg
